#!lua
-- Remove idle consumers without pending entries. (XGROUP DELCONSUMER would lose pending entries.)
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 ms after which a consumer counts as idle
-- Returns the names of the removed consumers

local INPUT = KEYS[1]
local GROUP, IDLE_MS = ARGV[1], tonumber(ARGV[2])

local removed = {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', INPUT, GROUP)) do
  local name, pending, idle = info[2], info[4], info[6]
  if pending == 0 and idle > IDLE_MS then
    redis.call('XGROUP', 'DELCONSUMER', INPUT, GROUP, name)
    removed[#removed + 1] = name
  end
end
return removed
