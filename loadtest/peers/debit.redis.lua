-- Read, check, write, in one script: no other command runs between. -1: refused.
local balance, amount = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1])
if balance < amount then return -1 end
redis.call('SET', KEYS[1], balance - amount)
return balance - amount
