#!lua flags=no-writes
-- Measure a partition: what its group has still to do, and how full the server is.
--
-- KEYS  1 input stream   2 open   3 waiting   4 owners of pending entries   5 counts
-- ARGV  1 consumer group   2 1 to look at the server's memory, else 0
--       3 id of the last delivered entry when the caller last learned the oldest unread one, or ''   4 ms of that unread one
-- Returns MessagePack: {now_ms, lag, pending, oldest_pending_ms, oldest_unread_ms, mark_ms, open, waiting,
--         memory_used, memory_limit, counts, last_delivered, unread_bytes}. A ms is that of an entry's id, -1 if there is
--         no entry. `mark_ms` is that of the low-water mark, without the pending entries that hold back one response
--         only. The limit is the server's maxmemory or, without one, the memory of its machine; 0 if it is not known.
--         `counts` is {name, number, …}. `last_delivered` is an id. `unread_bytes` is the size of the oldest unread
--         entry; 0 if the script did not read it, because ARGV 3 is still the last delivered one

local INPUT, OPEN, WAITING, OWNERS, COUNTS = unpack(KEYS)
local GROUP, LOOKS_AT_MEMORY, KNOWN_AFTER, KNOWN_MS = ARGV[1], ARGV[2] == '1', ARGV[3], ARGV[4]
-- Maximum pending entries with a known owner that are passed over to find the low-water mark.
local OWNED_PASSED_OVER = 100

local function ms_of(id)
  return tonumber(string.match(id, '^%d+'))
end

local lag, pending, last_delivered = false, 0, '0-0'
local groups = redis.pcall('XINFO', 'GROUPS', INPUT)
for _, info in ipairs(groups) do
  if info[2] == GROUP then
    pending, last_delivered, lag = info[6], info[8], info[12]
  end
end

-- The lag is not known without a group, or if entries were deleted one by one. Then the length is its upper bound.
local oldest_unread, unread_bytes = -1, 0
if lag ~= 0 then
  if KNOWN_AFTER == last_delivered then
    oldest_unread = tonumber(KNOWN_MS)
  else
    local first = redis.call('XRANGE', INPUT, '(' .. last_delivered, '+', 'COUNT', 1)[1]
    if first then
      oldest_unread = ms_of(first[1])
      for _, text in ipairs(first[2]) do unread_bytes = unread_bytes + #text end
    end
  end
  if not lag then lag = oldest_unread >= 0 and redis.call('XLEN', INPUT) or 0 end
end

local oldest_pending, mark = -1, oldest_unread
if pending > 0 then
  for n, entry in ipairs(redis.call('XPENDING', INPUT, GROUP, '-', '+', OWNED_PASSED_OVER)) do
    local ms = ms_of(entry[1])
    if n == 1 then oldest_pending = ms end
    if not redis.call('HGET', OWNERS, entry[1]) then
      if mark < 0 or ms < mark then mark = ms end
      break
    end
  end
end

local used, limit = 0, 0
if LOOKS_AT_MEMORY then
  local info = redis.pcall('INFO', 'memory')
  if type(info) == 'string' then
    used = tonumber(string.match(info, 'used_memory:(%d+)') or 0)
    limit = tonumber(string.match(info, '\nmaxmemory:(%d+)') or 0)
    if limit == 0 then limit = tonumber(string.match(info, 'total_system_memory:(%d+)') or 0) end
  end
end

-- As text, since MessagePack would make a floating-point number of some of them.
local function text(number)
  return string.format('%.0f', number)
end

return cmsgpack.pack({
  text(server_ms()), lag, pending, text(oldest_pending), text(oldest_unread), text(mark), redis.call('ZCARD', OPEN),
  redis.call('ZCARD', WAITING), text(used), text(limit), redis.call('HGETALL', COUNTS), last_delivered, unread_bytes,
})
