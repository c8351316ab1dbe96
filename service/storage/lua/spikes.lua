#!lua
-- Raises the alerts of spikes that begin or end, and notes those that last, unless others have done so since.
--
-- KEYS  1 spikes   2 alerts   3 spikes of providers
-- ARGV  1 the version that the spikes had   2 server time in ms when they were read   3 ms that this is good for
--       4 ms that a spike is kept
--       5 MessagePack {{number of the key to keep it in, field, the alert's JSON to keep or '',
--         entry {field, value, …}}, …}
-- Returns 1 if they were written, 0 if what was read is out of date
--
-- The spikes' fields: version, in key 1 only, counts the changes of both; <scope>:<name> has the alert that began a
-- spike, as JSON. Workers of v0.1.0 cannot read an alert about a provider, so those have a key of their own.

local SPIKES, ALERTS, PROVIDER_SPIKES = KEYS[1], KEYS[2], KEYS[3]
local VERSION, READ_MS, GOOD_FOR_MS, TTL_MS = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local KEY, FIELD, KEPT, ENTRY = 1, 2, 3, 4

if (redis.call('HGET', SPIKES, 'version') or '0') ~= VERSION or server_ms() - READ_MS > GOOD_FOR_MS then return 0 end

must_be_a('hash', PROVIDER_SPIKES)
must_be_a('stream', ALERTS)
must_be_allowed('XADD', ALERTS, '*', '', '')
must_be_allowed('HDEL', SPIKES, '')
must_be_allowed('HSET', SPIKES, '', '')
must_be_allowed('HINCRBY', SPIKES, 'version', '1')
must_be_allowed('PEXPIRE', SPIKES, TTL_MS)

for _, change in ipairs(cmsgpack.unpack(ARGV[5])) do
  redis.call('XADD', ALERTS, '*', unpack(change[ENTRY]))
  if change[KEPT] == '' then
    redis.call('HDEL', KEYS[change[KEY]], change[FIELD])
  else
    redis.call('HSET', KEYS[change[KEY]], change[FIELD], change[KEPT])
  end
end
redis.call('HINCRBY', SPIKES, 'version', 1)
redis.call('PEXPIRE', SPIKES, TTL_MS)
redis.call('PEXPIRE', PROVIDER_SPIKES, TTL_MS)
return 1
