#!lua
-- Raise the alerts of spikes that begin or end, and store which spikes last, unless the spikes have changed since they
-- were read.
--
-- KEYS  1 spikes   2 alerts   3 spikes of providers
-- ARGV  1 version of the spikes when they were read   2 server time in ms when they were read
--       3 maximum ms since then   4 TTL of the spikes in ms
--       5 MessagePack {{index in KEYS of the spike's hash, field, the alert's JSON, or '' to remove the spike,
--         the alert's entry {field, value, …}}, …}
-- Returns 1 if the changes were written, 0 if the spikes were read too long ago or have changed
--
-- The hashes' fields: <scope>:<name> has the alert that began a spike, as JSON; version, in key 1 only, counts the
-- changes of both hashes. Workers of v0.1.0 cannot read an alert about a provider, so key 3 has those.

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
