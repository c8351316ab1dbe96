#!lua flags=allow-oom
-- Add a delivery for each of some alerts, and acknowledge the alerts. An alert that is no longer pending is left out,
-- so each has one delivery.
-- The script also runs while the server is out of memory: acknowledged alerts can be trimmed, and free more than their
-- deliveries take. Without alerts, it checks only that it may run.
--
-- KEYS  1 alerts   2 deliveries
-- ARGV  1 the destination's group   2 id of an alert's entry   3 fields of its delivery, an array in MessagePack
--       4… the same for further alerts
-- Returns the number of deliveries that were added

local ALERTS, DELIVERIES = KEYS[1], KEYS[2]
local GROUP, FIRST = ARGV[1], 2

must_be_a('stream', DELIVERIES)
must_be_allowed('XADD', DELIVERIES, '*', '', '')
must_be_allowed('XACK', ALERTS, GROUP, '0-1')

local added = 0
for i = FIRST, #ARGV, 2 do
  local entry = ARGV[i]
  if #redis.call('XPENDING', ALERTS, GROUP, entry, entry, 1) > 0 then
    redis.call('XADD', DELIVERIES, '*', unpack(cmsgpack.unpack(ARGV[i + 1])))
    redis.call('XACK', ALERTS, GROUP, entry)
    added = added + 1
  end
end
return added
