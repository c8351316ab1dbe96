#!lua
-- Copy an undeliverable alert to the stream of undelivered alerts, add its delivery, and acknowledge it.
-- The script does nothing unless the alert is pending, so this happens once. The server copies the fields, so a
-- long text does not travel to the client and back.
--
-- KEYS  1 alerts   2 undelivered alerts   3 deliveries
-- ARGV  1 the destination's group   2 id of the alert's entry   3 fields of its delivery, an array in MessagePack
--       4… fields to add to the undelivered alert: name, value, …
-- Returns 1 if the alert was added, 0 if it was not pending

local ALERTS, UNDELIVERED, DELIVERIES = KEYS[1], KEYS[2], KEYS[3]
local GROUP, ENTRY, DELIVERY, FIRST_FIELD = ARGV[1], ARGV[2], ARGV[3], 4

if #redis.call('XPENDING', ALERTS, GROUP, ENTRY, ENTRY, 1) == 0 then return 0 end

must_be_a('stream', UNDELIVERED)
must_be_a('stream', DELIVERIES)
must_be_allowed('XADD', UNDELIVERED, '*', '', '')
must_be_allowed('XADD', DELIVERIES, '*', '', '')
must_be_allowed('XACK', ALERTS, GROUP, ENTRY)

local found = redis.call('XRANGE', ALERTS, ENTRY, ENTRY)[1]
local fields = found and found[2] or {} -- none if the alert was trimmed
for i = FIRST_FIELD, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', UNDELIVERED, '*', unpack(fields))
redis.call('XADD', DELIVERIES, '*', unpack(cmsgpack.unpack(DELIVERY)))
redis.call('XACK', ALERTS, GROUP, ENTRY)
return 1
