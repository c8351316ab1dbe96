#!lua
-- Create the scratch keys for which the worker sets no TTL, each with a TTL and with one value. The server deletes an
-- empty key, and the next write would create it again without a TTL.
--
-- KEYS  1… streams, hashes and sorted sets
-- ARGV  1 TTL in ms   2 member for the sorted sets   3… for each key its type
-- Returns nil

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
