#!lua
-- Find the responses that no batch will settle: those that the low-water mark has passed, idle ones, and those beyond
-- the limit of open responses.
--
-- Idleness is measured in stream time: the server's clock, limited by the oldest pending entry and, while entries are
-- unread, by the last delivered one. So a backlog makes no response idle.
--
-- KEYS  1 input stream   2 open   3 waiting   4 owners of pending entries
-- ARGV  1 consumer group   2 idle timeout in ms   3 maximum number of ready and of idle responses
--       4 ms after which a worker that still holds an entry counts as stuck
--       5 maximum number of open responses   6 a random number from 0 to 1   7 maximum number of surplus responses
-- Returns a map in MessagePack:
--         replication_id  as in commit.lua
--         now_ms          the server's time
--         low_water       as in commit.lua, but always with the id of the last delivered entry
--         ready           responses to settle
--         more            true if more responses may be ready
--         idle            {response, ms of its last activity, …}
--         surplus         the same, for the surplus responses

local INPUT, OPEN, WAITING, OWNERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local GROUP, IDLE_TIMEOUT_MS, AT_MOST = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local STALLED_MS, OPEN_AT_MOST, RANDOM, SURPLUS_AT_MOST = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]),
  tonumber(ARGV[7])

local function ms_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- Return true if entries that the group has not read follow this id. The lag in XINFO GROUPS shows it, unless the
-- server cannot compute the lag. XRANGE and XINFO STREAM would copy entries, which may be large.
local function has_more(stream, group, id)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local lag = info[12]
    if info[2] == group and lag then return lag > 0 end
  end
  return #redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', 1) > 0
end

local replication_id = current_replication_id()
local now_ms = server_ms()

-- Producers can choose entry ids in the future, so the server's clock limits the stream time.
local stream_ms = now_ms
local last_delivered = last_delivered_of(INPUT, GROUP)
local oldest_pending, stalled, owned, oldest = oldest_pending_of(INPUT, GROUP, STALLED_MS, OWNERS)
if has_more(INPUT, GROUP, last_delivered) then stream_ms = math.min(stream_ms, ms_of(last_delivered)) end
if oldest ~= '' then stream_ms = math.min(stream_ms, ms_of(oldest)) end

local passed_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', stalled and '+inf' or passed_ms, 'LIMIT', 0, AT_MOST)
local more = AT_MOST > 0 and #ready >= AT_MOST
ready = without_owned(ready, owned, WAITING, true)
local idle = redis.call('ZRANGEBYSCORE', OPEN, '-inf', '(' .. string.format('%.0f', stream_ms - IDLE_TIMEOUT_MS),
  'WITHSCORES', 'LIMIT', 0, AT_MOST)

-- The surplus responses are those without an entry for the longest time. If one survey cannot return all of them, it
-- starts at a random one, so that workers that survey at the same time return different ones.
local beyond = redis.call('ZCARD', OPEN) - OPEN_AT_MOST
local first = math.floor(math.max(beyond - SURPLUS_AT_MOST + 1, 0) * RANDOM)
local last = first + math.min(beyond, SURPLUS_AT_MOST) - 1
local surplus = last >= first and redis.call('ZRANGE', OPEN, first, last, 'WITHSCORES') or {}
return cmsgpack.pack({
  replication_id = replication_id, now_ms = string.format('%.0f', now_ms),
  low_water = {oldest_pending, last_delivered, stalled, owned}, ready = ready, more = more, idle = idle, surplus = surplus,
})
