#!lua
-- Takes a lease that nobody holds, or prolongs one's own.
--
-- KEYS  1 lease
-- ARGV  1 who wants it   2 for how many ms
-- Returns 1 if it is theirs now, else 0

local LEASE = KEYS[1]
local OWNER, TTL_MS = ARGV[1], ARGV[2]

local holder = redis.call('GET', LEASE)
if holder and holder ~= OWNER then return 0 end
redis.call('SET', LEASE, OWNER, 'PX', TTL_MS)
return 1
