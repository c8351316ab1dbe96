#!lua
-- Create the note of the state's format, or raise it to this worker's format. A note that this worker cannot parse, or
-- that requires a newer reader, stays unchanged.
--
-- KEYS  1 format
-- ARGV  1 format that this worker writes   2 oldest format whose readers can read that   3 this worker's name
-- Returns the previous note: {version, min_reader, written_by}, nil for a missing field; {} if the key did not exist;
--         the key's type if it is not a hash

local FORMAT_KEY = KEYS[1]
local FORMAT, MIN_READER, WRITTEN_BY = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

local function whole(value)
  return value and #value < 10 and string.match(value, '^%d+$') and tonumber(value)
end

local function write(min_reader)
  redis.call('HSET', FORMAT_KEY, 'version', FORMAT, 'min_reader', min_reader, 'written_by', WRITTEN_BY)
end

local kind = redis.call('TYPE', FORMAT_KEY).ok
if kind == 'none' then
  write(MIN_READER)
  return {}
end
if kind ~= 'hash' then return kind end

local found = redis.call('HMGET', FORMAT_KEY, 'version', 'min_reader', 'written_by')
local version, min_reader = whole(found[1]), whole(found[2])
if version and min_reader and min_reader <= FORMAT and version < FORMAT then
  write(math.max(min_reader, MIN_READER))
end
return found
