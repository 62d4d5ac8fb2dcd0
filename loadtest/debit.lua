-- wrk script: POST {"amount":1} to one of BENCH_NAMES accounts, picked at random for each call.
-- Every request is built once, before the clock starts, so that wrk itself stays cheap. No `response` function: with one,
-- wrk builds a table for each reply, and the client would take the servers' CPU. What was written is audited afterwards.
-- Environment: BENCH_NAMES (how many accounts, from acct-1 on), BENCH_PATH (path with one %d for the account's number),
-- BENCH_BODY (the JSON to send), BENCH_KEYS (not empty: every request has an Idempotency-Key of its own).
local names = tonumber(os.getenv("BENCH_NAMES") or "10000")
local path = os.getenv("BENCH_PATH") or "/actors/Account/acct-%d/debit"
local body = os.getenv("BENCH_BODY") or '{"amount":1}'
local headers = { ["Content-Type"] = "application/json" }
local requests = {}
local keys = (os.getenv("BENCH_KEYS") or "") ~= ""
local tails = {}
local run, serial

local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  math.randomseed(os.time() * 7 + (number or 0) * 7919 + 13)
  for i = 1, names do
    requests[i] = wrk.format("POST", string.format(path, i), headers, body)
    if keys then
      local line = requests[i]:find("\r\n", 1, true)
      requests[i], tails[i] = requests[i]:sub(1, line + 1) .. "Idempotency-Key: ", requests[i]:sub(line)
    end
  end
  run, serial = string.format("%08x-%04x-", os.time(), math.random(65535)), 0
end

function request()
  if keys then
    local i = math.random(names)
    serial = serial + 1
    return requests[i] .. run .. serial .. tails[i]
  end
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
