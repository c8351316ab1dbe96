#!lua
-- Remove idle consumers without pending entries, except the caller's own. (XGROUP DELCONSUMER would lose pending entries.)
-- Reading pending entries after an id that no entry reaches gives none, but resets the idle time of the caller's consumer, or
-- creates it: so a worker that waits and reads nothing stays listed. In Redis 7.0, a claim without entries does not.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 ms after which a consumer counts as idle   3 the caller's consumer
-- Returns the names of the removed consumers

local INPUT = KEYS[1]
local GROUP, IDLE_MS, OWN = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local AFTER_ALL = '18446744073709551614-0'

redis.call('XREADGROUP', 'GROUP', GROUP, OWN, 'COUNT', 1, 'STREAMS', INPUT, AFTER_ALL)

local removed = {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', INPUT, GROUP)) do
  local name, pending, idle = info[2], info[4], info[6]
  if pending == 0 and idle > IDLE_MS and name ~= OWN then
    redis.call('XGROUP', 'DELCONSUMER', INPUT, GROUP, name)
    removed[#removed + 1] = name
  end
end
return removed
