#!lua
-- Read the beginning of an entry, because a whole entry may not fit into the reader's memory.
--
-- KEYS  1 stream
-- ARGV  1 the entry's id   2 maximum bytes of names and values to return
-- Returns {total bytes of the entry's names and values, name, value, …}, the last value perhaps truncated; nil if the
--         stream has no such entry

local STREAM = KEYS[1]
local ENTRY, AT_MOST = ARGV[1], tonumber(ARGV[2])

local found = redis.call('XRANGE', STREAM, ENTRY, ENTRY)[1]
if not found then return nil end
local fields = found[2]
local size, left, reply = 0, AT_MOST, {0}
for n = 1, #fields, 2 do
  local name, value = fields[n], fields[n + 1]
  size = size + #name + #value
  if left > #name then
    reply[n + 1], reply[n + 2] = name, string.sub(value, 1, left - #name)
    left = left - #name - #value
  else
    left = 0
  end
end
reply[1] = size
return reply
