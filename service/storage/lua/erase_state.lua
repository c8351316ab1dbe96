#!lua flags=allow-oom
-- Delete the state or a log of a response, unless the response is open or waits to be settled.
--
-- KEYS  1 state or log   2 open   3 waiting
-- ARGV  1 the response, as in OPEN and WAITING
-- Returns 1 if the key was deleted, 0 if it did not exist, -1 if the response is not over

local KEY, OPEN, WAITING, RESPONSE = KEYS[1], KEYS[2], KEYS[3], ARGV[1]

if redis.call('ZSCORE', OPEN, RESPONSE) or redis.call('ZSCORE', WAITING, RESPONSE) then return -1 end
return redis.call('DEL', KEY)
