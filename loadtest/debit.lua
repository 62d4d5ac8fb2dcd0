-- wrk script: POST a JSON body, {"amount":1}, to one of BENCH_NAMES accounts, picked at random for each call.
-- Requests are built once, before the clock starts, so that wrk itself stays cheap; those of more than PREPARED names
-- when they are sent. No `response` function: with one, wrk builds a table for each reply, and the client would take
-- the servers' CPU. What was written is audited afterwards.
-- Environment: BENCH_NAMES (how many accounts, from acct-1 on), BENCH_PATH (path with one %d for the account's number),
-- BENCH_BODY (the JSON to send), BENCH_KEYS (not empty: every request has an Idempotency-Key of its own), BENCH_STRIDE
-- (not empty: no chance; every so manieth account in turn, beginning at number BENCH_FIRST and around).
local PREPARED = 100000
local names = tonumber(os.getenv("BENCH_NAMES") or "10000")
local path = os.getenv("BENCH_PATH") or "/actors/Account/acct-%d/debit"
local body = os.getenv("BENCH_BODY") or '{"amount":1}'
local headers = { ["Content-Type"] = "application/json" }
local requests = {}
local keys = (os.getenv("BENCH_KEYS") or "") ~= ""
local stride = tonumber(os.getenv("BENCH_STRIDE") or "")
-- One step back: wrk asks for a first request that it does not send.
local number = stride and (tonumber(os.getenv("BENCH_FIRST") or "1") - stride - 1) % names + 1
local head, tail, ends
local run, serial

local threads = 0
function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(args)
  math.randomseed(os.time() * 7 + (thread_number or 0) * 7919 + 13)
  local before, after = path:match("^(.*)%%d(.*)$")
  local whole = wrk.format("POST", before .. "\1" .. after, headers, body)
  local at = whole:find("\1", 1, true)
  head, tail = whole:sub(1, at - 1), whole:sub(at + 1)
  if keys then
    local line = tail:find("\r\n", 1, true)
    tail, ends = tail:sub(1, line + 1) .. "Idempotency-Key: ", tail:sub(line)
  end
  if names <= PREPARED then
    for i = 1, names do
      requests[i] = head .. i .. tail
    end
  end
  run, serial = string.format("%08x-%04x-", os.time(), math.random(65535)), 0
end

function request()
  local i
  if stride then
    i = number
    number = (number + stride - 1) % names + 1
  else
    i = math.random(names)
  end
  local made = requests[i] or head .. i .. tail
  if keys then
    serial = serial + 1
    return made .. run .. serial .. ends
  end
  return made
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
