#!lua
-- Makes the keys that would have no TTL under a scratch prefix, with one, and with something in them that keeps them.
--
-- KEYS  1… streams, hashes and sorted sets
-- ARGV  1 ms after which they expire   2 a member of a sorted set   3… for each key its type

local TTL_MS, MEMBER, FIRST_TYPE = ARGV[1], ARGV[2], 3

for k, key in ipairs(KEYS) do
  local kind = ARGV[FIRST_TYPE - 1 + k]
  redis.call('DEL', key)
  if kind == 'stream' then
    redis.call('XADD', key, '*', 'scratch', '')
  elseif kind == 'hash' then
    redis.call('HSET', key, 'scratch', '0')
  else
    redis.call('ZADD', key, 'inf', MEMBER)
  end
  redis.call('PEXPIRE', key, TTL_MS)
end
