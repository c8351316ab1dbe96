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

local function parts_of(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(id, other)
  local ms, seq = parts_of(id)
  local other_ms, other_seq = parts_of(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

-- What the slowest of some groups needs: its oldest pending entry, else the last one it was given.
local function needed_of(stream, prefix)
  local needed
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group, last_delivered = info[2], info[8]
    if string.sub(group, 1, #prefix) == prefix then
      local pending = redis.call('XPENDING', stream, group)
      local first = pending[1] > 0 and pending[2] or last_delivered
      if not needed or before(first, needed) then needed = first end
    end
  end
  return needed
end

local now_ms = tonumber(redis.call('TIME')[1]) * 1000
local function id_of_age(ms) return string.format('%.0f-0', now_ms - ms) end

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
