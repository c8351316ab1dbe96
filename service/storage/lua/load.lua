#!lua flags=no-writes
-- Read states and logs atomically. A log that is newer than its response's state could give a text without its
-- context, such as the model. (MULTI would also do, but a cluster's client has no dependable transactions.)
-- A response that is too large for one call is read in several, its state last.
--
-- KEYS  states and logs
-- ARGV  1 bytes after which no further key is read; 0 for no limit   2… for each key its type: `state` or `log`
-- Returns for each key that was read, in order: the fields of a state {name, value, …}; the bytes of a log, nil for a
--         missing one

local AT_MOST, FIRST_TYPE = tonumber(ARGV[1]), 2

local found, bytes = {}, 0
for k, key in ipairs(KEYS) do
  if AT_MOST > 0 and bytes > AT_MOST then break end
  if ARGV[FIRST_TYPE - 1 + k] == 'state' then
    found[k] = redis.call('HGETALL', key)
    for f = 2, #found[k], 2 do bytes = bytes + #found[k][f] end
  else
    found[k] = redis.call('GET', key)
    bytes = bytes + #(found[k] or '')
  end
end
return found
