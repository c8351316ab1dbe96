#!lua
-- Acquire the right to look for spikes. Only one worker holds it at a time, and it expires by itself.
--
-- KEYS  1 turn   2 spikes   3 spikes of providers
-- ARGV  1 consumer   2 duration in ms
-- Returns {server time in ms, {field, value, …} of both spike hashes}; nil if a worker still holds the right

local TURN, SPIKES, PROVIDER_SPIKES = KEYS[1], KEYS[2], KEYS[3]
local CONSUMER, LASTS_MS = ARGV[1], ARGV[2]

must_be_a('string', TURN)
must_be_a('hash', SPIKES)
must_be_a('hash', PROVIDER_SPIKES)
must_be_allowed('HGETALL', SPIKES)

if not redis.call('SET', TURN, CONSUMER, 'NX', 'PX', LASTS_MS) then return nil end
local spikes = redis.call('HGETALL', SPIKES)
for _, each in ipairs(redis.call('HGETALL', PROVIDER_SPIKES)) do spikes[#spikes + 1] = each end
return {string.format('%.0f', server_ms()), spikes}
