#!lua flags=allow-oom
-- Reset the idle time of a consumer's pending entries, so that no other worker claims them. Entries that another
-- consumer has claimed are left alone.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 consumer   3… entry ids
-- Returns nil

local INPUT = KEYS[1]
local GROUP, CONSUMER, FIRST_ID = ARGV[1], ARGV[2], 3

for i = FIRST_ID, #ARGV do
  local id = ARGV[i]
  if #redis.call('XPENDING', INPUT, GROUP, id, id, 1, CONSUMER) > 0 then
    redis.call('XCLAIM', INPUT, GROUP, CONSUMER, 0, id, 'JUSTID')
  end
end
