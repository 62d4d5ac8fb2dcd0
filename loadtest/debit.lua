-- wrk script: POST {"amount":1} to one of BENCH_NAMES accounts, picked at random for each call.
-- Every request is built once, before the clock starts, so that wrk itself stays cheap. No `response` function: with one,
-- wrk builds a table for each reply, and the client would take the servers' CPU. What was written is audited afterwards.
-- Environment: BENCH_NAMES (how many accounts, from acct-1 on), BENCH_PATH (path with one %d for the account's number).
local names = tonumber(os.getenv("BENCH_NAMES") or "10000")
local path = os.getenv("BENCH_PATH") or "/actors/Account/acct-%d/debit"
local headers = { ["Content-Type"] = "application/json" }
local requests = {}

local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  math.randomseed(os.time() * 7 + (number or 0) * 7919 + 13)
  for i = 1, names do
    requests[i] = wrk.format("POST", string.format(path, i), headers, '{"amount":1}')
  end
end

function request()
  return requests[math.random(names)]
end

-- One line that measure.py reads. Times are microseconds.
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'JSON {"requests":%d,"duration_us":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,'
      .. '"p50":%d,"p90":%d,"p99":%d,"max":%d}\n',
    summary.requests, summary.duration, e.status, e.connect, e.read, e.write, e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
