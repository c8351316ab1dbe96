#!lua
-- Create the notes of the state's format of several partitions, or raise them to this worker's format. A note that
-- this worker cannot parse, or that requires a newer reader, stays unchanged.
--
-- KEYS  formats
-- ARGV  1 format that this worker writes   2 oldest format whose readers can read that   3 this worker's name
-- Returns for each key the previous note: {version, min_reader, written_by}, nil for a missing field; {} if the key did
--         not exist; the key's type if it is not a hash

local FORMAT, MIN_READER, WRITTEN_BY = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local function whole(value)
  return value and #value < 10 and string.match(value, '^%d+$') and tonumber(value)
end

local function write(key, min_reader)
  redis.call('HSET', key, 'version', FORMAT, 'min_reader', min_reader, 'written_by', WRITTEN_BY)
end

-- Write the note of a partition, and return the previous one.
local function note(key)
  local found = redis.pcall('HMGET', key, 'version', 'min_reader', 'written_by')
  if found.err or not (found[1] or found[2] or found[3]) then
    local kind = redis.call('TYPE', key).ok
    if kind == 'none' then
      write(key, MIN_READER)
      return {}
    end
    if kind ~= 'hash' then return kind end
    if found.err then refuse(found.err) end
  end
  local version, min_reader = whole(found[1]), whole(found[2])
  if version and min_reader and min_reader <= FORMAT and version < FORMAT then
    write(key, math.max(min_reader, MIN_READER))
  end
  return found
end

local notes = {}
for k, key in ipairs(KEYS) do notes[k] = note(key) end
return notes
