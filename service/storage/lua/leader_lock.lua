#!lua
-- Acquire the lock of the worker that looks for spikes. Only one worker holds it at a time, and it expires by itself.
--
-- KEYS  1 lock   2 spikes   3 spikes of providers
-- ARGV  1 consumer   2 duration in ms
-- Returns {server time in ms, {field, value, …} of both spike hashes}; nil if a worker still holds the lock

local LOCK, SPIKES, PROVIDER_SPIKES = KEYS[1], KEYS[2], KEYS[3]
local CONSUMER, LASTS_MS = ARGV[1], ARGV[2]

must_be_a('string', LOCK)
must_be_a('hash', SPIKES)
must_be_a('hash', PROVIDER_SPIKES)
must_be_allowed('HGETALL', SPIKES)

if not redis.call('SET', LOCK, CONSUMER, 'NX', 'PX', LASTS_MS) then return nil end
local spikes = redis.call('HGETALL', SPIKES)
for _, each in ipairs(redis.call('HGETALL', PROVIDER_SPIKES)) do spikes[#spikes + 1] = each end
return {string.format('%.0f', server_ms()), spikes}
