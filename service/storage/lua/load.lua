#!lua flags=no-writes
-- Reads responses as they are at one moment: a log that is newer than the context beside it would give a
-- text that does not say whose it is. (A transaction would do too, but a cluster's client has none to rely on.)
-- Of a response that is too large for one call, the state is read last.
--
-- KEYS  states and logs
-- ARGV  for each key `state` or `log`
-- Returns for each state its fields {name, value, …}, for each log its bytes, nil where there is none

local found = {}
for k, key in ipairs(KEYS) do
  if ARGV[k] == 'state' then
    found[k] = redis.call('HGETALL', key)
  else
    found[k] = redis.call('GET', key)
  end
end
return found
