#!lua flags=allow-oom
-- Trims the input behind what every group has acknowledged, and the outputs by age. It runs also when the
-- server is out of memory, because then nothing else would free any.
-- What any group has yet to read or to acknowledge of the input is never trimmed. Of an output, what a relay
-- has yet to deliver is kept for longer. `~` trims by whole nodes: cheap.
--
-- KEYS  1 input stream   2… outputs
-- ARGV  1 ms of age beyond which outputs go   2 how many entries of each stream at most
--       3 what the names of the relays' groups begin with   4 ms of age beyond which all of an output goes
-- Returns how many entries were trimmed from the input, and from the outputs together

local INPUT, FIRST_OUTPUT = KEYS[1], 2
local RETENTION_MS, AT_MOST, RELAYS, LONGEST_MS = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4])

local function trim(stream, first)
  return redis.call('XTRIM', stream, 'MINID', '~', first, 'LIMIT', AT_MOST)
end

local outputs = 0
for i = FIRST_OUTPUT, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    local first, owed = id_of_age(RETENTION_MS), needed_of(KEYS[i], RELAYS)
    if owed and before(owed, first) then
      local last_chance = id_of_age(math.max(RETENTION_MS, LONGEST_MS))
      first = before(owed, last_chance) and last_chance or owed
    end
    outputs = outputs + trim(KEYS[i], first)
  end
end

local needed = needed_of(INPUT, '')
return {needed and trim(INPUT, needed) or 0, outputs}
