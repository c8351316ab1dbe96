#!lua
-- Lets go of a lease, if it is one's own.
--
-- KEYS  1 lease
-- ARGV  1 whose it should be

local LEASE, OWNER = KEYS[1], ARGV[1]

if redis.call('GET', LEASE) == OWNER then redis.call('DEL', LEASE) end
