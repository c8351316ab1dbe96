#!lua flags=allow-oom
-- A consumer says good-bye: what it holds may be taken over at once; holding nothing, it is removed.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 consumer   3 how many entries at most   4 the first one that may be: an id, `(` before it
--       leaves it out; `-` is the beginning
-- Returns how many entries it left now, and the last one of them

local INPUT = KEYS[1]
local GROUP, CONSUMER, AT_MOST, FIRST = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local LONG_MS = 86400000

local left = redis.call('XPENDING', INPUT, GROUP, FIRST, '+', AT_MOST, CONSUMER)
for _, pending in ipairs(left) do
  redis.call('XCLAIM', INPUT, GROUP, CONSUMER, 0, pending[1], 'IDLE', LONG_MS, 'JUSTID')
end
if #left == 0 and FIRST == '-' then redis.call('XGROUP', 'DELCONSUMER', INPUT, GROUP, CONSUMER) end
return {#left, #left > 0 and left[#left][1] or FIRST}
