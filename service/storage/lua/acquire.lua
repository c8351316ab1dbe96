#!lua flags=allow-oom
-- Acquire a free lease, or extend the caller's own lease. It may do so while memory is full: a relay that lost its lease
-- would send alerts again. The worker that measures the memory holds such a lease too.
--
-- KEYS  1 lease
-- ARGV  1 the caller's name   2 duration in ms
-- Returns 1 if the caller holds the lease now, else 0

local LEASE = KEYS[1]
local OWNER, TTL_MS = ARGV[1], ARGV[2]

local holder = redis.call('GET', LEASE)
if holder and holder ~= OWNER then return 0 end
redis.call('SET', LEASE, OWNER, 'PX', TTL_MS)
return 1
