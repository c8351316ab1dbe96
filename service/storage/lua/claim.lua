#!lua
-- Claim entries that have been pending for too long. The delivery counts stay unchanged.
-- Entries that were trimmed from the input while pending are lost: the script counts and reports them.
--
-- KEYS  1 input stream   2 counts
-- ARGV  1 consumer group   2 consumer   3 minimum idle ms   4 cursor   5 maximum number of entries
-- Returns MessagePack: {cursor, {id of a lost entry, …}, {{id, deliveries}, …}}; the cursor is 0-0 after the last page

local INPUT, COUNTS = KEYS[1], KEYS[2]
local GROUP, CONSUMER, IDLE_MS, CURSOR, AT_MOST = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

must_be_a('hash', COUNTS)
must_be_allowed('HINCRBY', COUNTS, 'lost', '1')
must_be_allowed('HSET', COUNTS, 'lost', '1')
must_be_allowed('XPENDING', INPUT, GROUP)

local reply = redis.call('XAUTOCLAIM', INPUT, GROUP, CONSUMER, IDLE_MS, CURSOR, 'COUNT', AT_MOST, 'JUSTID')
local cursor, ids, lost = reply[1], reply[2], reply[3]
if #lost > 0 then add_to(COUNTS, 'lost', #lost) end

local claimed = {}
for i, id in ipairs(ids) do
  claimed[i] = {id, redis.call('XPENDING', INPUT, GROUP, id, id, 1)[1][4]}
end
return cmsgpack.pack({cursor, lost, claimed})
