#!lua
-- Gives a worker the turn to look for spikes, unless another one had it just now.
--
-- KEYS  1 turn   2 spikes   3 spikes of providers
-- ARGV  1 consumer   2 ms that the turn lasts
-- Returns {server time in ms, fields and values of all spikes}, or nil

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
