#!lua flags=no-writes
-- Read states and logs atomically. A log that is newer than its response's state could give a text without its
-- context, such as the model. (MULTI would also do, but a cluster's client has no dependable transactions.)
-- A response that is too large for one call is read in several, its state last.
--
-- KEYS  states and logs
-- ARGV  for each key its type: `state` or `log`
-- Returns for each state its fields {name, value, …}, for each log its bytes, nil for a missing log

local found = {}
for k, key in ipairs(KEYS) do
  if ARGV[k] == 'state' then
    found[k] = redis.call('HGETALL', key)
  else
    found[k] = redis.call('GET', key)
  end
end
return found
