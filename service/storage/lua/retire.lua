#!lua
-- Removes consumers that are gone and hold nothing. (Removing one that holds entries would lose them.)
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 idle ms after which a consumer is gone
-- Returns the names of those removed

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
