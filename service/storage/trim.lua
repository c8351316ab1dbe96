#!lua flags=allow-oom
-- Trims the input behind what every group has acknowledged, and the outputs by age. It runs also when the
-- server is out of memory, because then nothing else would free any.
-- What any group has yet to read or to acknowledge is never trimmed. `~` trims by whole nodes: cheap.
--
-- KEYS  1 input stream   2… outputs
-- ARGV  1 ms of age beyond which outputs go   2 how many entries of each stream at most
-- Returns how many entries were trimmed from the input, and from the outputs together

local INPUT, FIRST_OUTPUT = KEYS[1], 2
local RETENTION_MS, AT_MOST = tonumber(ARGV[1]), ARGV[2]

local function parts_of(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function before(id, other)
  local ms, seq = parts_of(id)
  local other_ms, other_seq = parts_of(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

-- What the slowest group needs: its oldest pending entry, else the last one it was given.
local needed
for _, info in ipairs(redis.call('XINFO', 'GROUPS', INPUT)) do
  local group, last_delivered = info[2], info[8]
  local pending = redis.call('XPENDING', INPUT, group)
  local first = pending[1] > 0 and pending[2] or last_delivered
  if not needed or before(first, needed) then needed = first end
end

local now = redis.call('TIME')
local oldest = string.format('%.0f', tonumber(now[1]) * 1000 - RETENTION_MS)
local outputs = 0
for i = FIRST_OUTPUT, #KEYS do
  outputs = outputs + redis.call('XTRIM', KEYS[i], 'MINID', '~', oldest, 'LIMIT', AT_MOST)
end
return {needed and redis.call('XTRIM', INPUT, 'MINID', '~', needed, 'LIMIT', AT_MOST) or 0, outputs}
