#!lua flags=no-writes
-- Reads responses as they are at one moment: a log that is newer than the context beside it would give a
-- text that does not say whose it is. (A transaction would do too, but a cluster's client has none to rely on.)
--
-- KEYS  for each response its state, then the logs that are wanted
-- ARGV  for each response how many logs
-- Returns for each response the fields of its state {name, value, …}, then its logs, nil where there is none

local found, key = {}, 0

local function next_key()
  key = key + 1
  return KEYS[key]
end

for _, logs in ipairs(ARGV) do
  found[#found + 1] = redis.call('HGETALL', next_key())
  for _ = 1, tonumber(logs) do found[#found + 1] = redis.call('GET', next_key()) end
end
return found
