#!lua
-- A consumer says good-bye: what it holds may be taken over at once; holding nothing, it is removed.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 consumer   3 how many entries at most
-- Returns how many entries it left

local INPUT = KEYS[1]
local GROUP, CONSUMER, AT_MOST = ARGV[1], ARGV[2], ARGV[3]
local LONG_MS = 86400000

local left = redis.call('XPENDING', INPUT, GROUP, '-', '+', AT_MOST, CONSUMER)
for _, pending in ipairs(left) do
  redis.call('XCLAIM', INPUT, GROUP, CONSUMER, 0, pending[1], 'IDLE', LONG_MS, 'JUSTID')
end
if #left == 0 then redis.call('XGROUP', 'DELCONSUMER', INPUT, GROUP, CONSUMER) end
return #left
