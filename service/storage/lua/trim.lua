#!lua flags=allow-oom
-- Trim the input up to the first entry that a group has yet to read or to acknowledge, and the outputs by age. An
-- output keeps the entries that a relay has yet to deliver for longer.
-- The script also runs while the server is out of memory, to free some. `~` trims whole nodes, which is cheap.
--
-- KEYS  1 input stream   2… outputs
-- ARGV  1 maximum age of output entries in ms   2 maximum number of entries to trim from each stream
--       3 prefix of the relays' group names   4 maximum age in ms of output entries that a relay has yet to deliver
-- Returns {number of entries trimmed from the input, number of entries trimmed from all outputs}

local INPUT, FIRST_OUTPUT = KEYS[1], 2
local RETENTION_MS, AT_MOST, RELAYS, LONGEST_MS = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local function trim(stream, first)
  return redis.call('XTRIM', stream, 'MINID', '~', first, 'LIMIT', AT_MOST)
end

local outputs = 0
for i = FIRST_OUTPUT, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local first, needed = id_of_age(RETENTION_MS), needed_of(KEYS[i], RELAYS)
    if needed and before(needed, first) then
      local longest = id_of_age(math.max(RETENTION_MS, LONGEST_MS))
      first = before(needed, longest) and longest or needed
    end
    outputs = outputs + trim(KEYS[i], first)
  end
end

local needed = needed_of(INPUT, '')
return {needed and trim(INPUT, needed) or 0, outputs}
