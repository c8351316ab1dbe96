#!lua
-- Transfer pending entries of a stopped consumer to another one, at once. The delivery counts stay unchanged.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 the new consumer   3 the stopped consumer   4 maximum number of entries
-- Returns MessagePack: {{id, deliveries}, …}, empty if no entry is left

local INPUT = KEYS[1]
local GROUP, CONSUMER, STOPPED, AT_MOST = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

must_be_allowed('XCLAIM', INPUT, GROUP, CONSUMER, '0', '0-1', 'JUSTID')

local adopted = {}
for i, pending in ipairs(redis.call('XPENDING', INPUT, GROUP, '-', '+', AT_MOST, STOPPED)) do
  local id, deliveries = pending[1], pending[4]
  redis.call('XCLAIM', INPUT, GROUP, CONSUMER, 0, id, 'JUSTID')
  adopted[i] = {id, deliveries}
end
return cmsgpack.pack(adopted)
