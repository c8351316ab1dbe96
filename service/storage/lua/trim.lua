#!lua flags=allow-oom
-- Trim the input up to the first entry that a group has yet to read or to acknowledge, and the outputs by age. An
-- output keeps the entries that a relay has yet to deliver for longer, and those that one more group has yet to
-- acknowledge until it has, while all outputs together are within a budget.
-- The script also runs while the server is out of memory, to free some. `~` trims whole nodes, which is cheap.
--
-- KEYS  1 input stream   2… outputs
-- ARGV  1 maximum age of output entries in ms   2 maximum number of entries to trim from each stream
--       3 prefix of the relays' group names   4 maximum age in ms of output entries that a relay has yet to deliver
--       5 name of the group that outputs wait for, '' for none   6 number of outputs, the first ones, that wait for it
--       7 budget in bytes; 0 for no limit
-- Returns {number of entries trimmed from the input, number of entries trimmed from all outputs,
--          bytes of all outputs; 0 without a group or a budget, ms since the oldest entry that the group has yet to
--          acknowledge; 0 if there is none, maximum number of these entries that were trimmed}

local INPUT, FIRST_OUTPUT = KEYS[1], 2
local RETENTION_MS, AT_MOST, RELAYS, LONGEST_MS = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])
local GROUP, WAITING, BUDGET = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local SAMPLED_NODES, BEGINNING = 100, '0-1'

local function trim(stream, first)
  return redis.call('XTRIM', stream, 'MINID', '~', first, 'LIMIT', AT_MOST)
end

local function bytes_of_outputs()
  local bytes = 0
  for i = FIRST_OUTPUT, #KEYS do
    bytes = bytes + (redis.call('MEMORY', 'USAGE', KEYS[i], 'SAMPLES', SAMPLED_NODES) or 0)
  end
  return bytes
end

-- Return the first entry of an output that the group needs, and the ms of the oldest one that it has yet to acknowledge,
-- nil if there is none. A group that is missing has yet to read everything.
local function waited_for(stream)
  local needed, is_pending = needed_of(stream, GROUP, true)
  if is_pending then return needed, numbers_of(needed) end
  local unread = redis.call('XRANGE', stream, '(' .. (needed or '0-0'), '+', 'COUNT', 1)[1]
  return needed or BEGINNING, unread and numbers_of(unread[1])
end

local bytes = GROUP ~= '' and BUDGET > 0 and bytes_of_outputs() or 0
local outputs, oldest_ms, lost = 0, nil, 0
for i = FIRST_OUTPUT, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local first, needed = id_of_age(RETENTION_MS), needed_of(KEYS[i], RELAYS)
    if needed and before(needed, first) then
      local longest = id_of_age(math.max(RETENTION_MS, LONGEST_MS))
      first = before(needed, longest) and longest or needed
    end
    local waits = false
    if GROUP ~= '' and i < FIRST_OUTPUT + WAITING then
      local kept, unacknowledged_ms = waited_for(KEYS[i])
      if unacknowledged_ms then oldest_ms = math.min(oldest_ms or unacknowledged_ms, unacknowledged_ms) end
      waits = unacknowledged_ms and before(kept, first)
      if waits and bytes <= BUDGET then first = kept end
    end
    local trimmed = trim(KEYS[i], first)
    outputs = outputs + trimmed
    if waits and bytes > BUDGET then lost = lost + trimmed end
  end
end

local needed = needed_of(INPUT, '')
return {needed and trim(INPUT, needed) or 0, outputs, bytes, oldest_ms and server_ms() - oldest_ms or 0, lost}
