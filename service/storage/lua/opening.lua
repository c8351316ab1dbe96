#!lua flags=no-writes
-- Read what the opening alerts of parts need from the states of their responses.
--
-- KEYS  states
-- ARGV  1 the names of the fields to read from each state, MessagePack: sent once, since they are many
--       2… for each state the part that begins
-- Returns an array with an item for each state: the values of alerted:<part>, part:<part> and the other fields, nil for
--         one that is not set. The item is nil if the state is missing, as most are.

local names, found = cmsgpack.unpack(ARGV[1]), {}
for k, key in ipairs(KEYS) do
  found[k] = redis.call('EXISTS', key) == 1
    and redis.call('HMGET', key, 'alerted:' .. ARGV[k + 1], 'part:' .. ARGV[k + 1], unpack(names))
end
return found
