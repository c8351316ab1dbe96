#!lua
-- Takes over what a consumer that is gone left pending, at once and without counting that as a delivery.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 the new consumer   3 the one that is gone   4 how many at most
-- Returns MessagePack: {{id, deliveries}, …}, none where nothing is left

local INPUT = KEYS[1]
local GROUP, HEIR, GONE, AT_MOST = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

must_be_allowed('XCLAIM', INPUT, GROUP, HEIR, '0', '0-1', 'JUSTID')

local inherited = {}
for i, pending in ipairs(redis.call('XPENDING', INPUT, GROUP, '-', '+', AT_MOST, GONE)) do
  local id, deliveries = pending[1], pending[4]
  redis.call('XCLAIM', INPUT, GROUP, HEIR, 0, id, 'JUSTID')
  inherited[i] = {id, deliveries}
end
return cmsgpack.pack(inherited)
