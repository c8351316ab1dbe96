#!lua flags=allow-oom
-- Release a lease, if the caller holds it.
--
-- KEYS  1 lease
-- ARGV  1 the caller's name
-- Returns nil

local LEASE, OWNER = KEYS[1], ARGV[1]

if redis.call('GET', LEASE) == OWNER then redis.call('DEL', LEASE) end
