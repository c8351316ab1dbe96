#!lua
-- Looks for what no batch will settle: responses passed by the low-water mark, and idle ones.
--
-- Idle is measured in the stream's own time: what lies unread in the input has not yet come, however long
-- ago it was written. That time is the server's clock while nothing is unread.
--
-- KEYS  1 input stream   2 open   3 waiting
-- ARGV  1 consumer group   2 idle timeout in ms   3 how many at most
--       4 a worker that holds an entry for longer than these ms is taken for stuck
--       5 how many responses may be open
-- Returns MessagePack: {low_water, now_ms, ready, idle {member, latest_ms, …}, surplus likewise, history}
--         low_water and history as in commit.lua

local INPUT, OPEN, WAITING = KEYS[1], KEYS[2], KEYS[3]
local GROUP, IDLE_TIMEOUT_MS, AT_MOST = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local STALLED_MS, OPEN_AT_MOST = tonumber(ARGV[4]), tonumber(ARGV[5])

local function ms_of(id)
  return tonumber(string.match(id, '^%d+'))
end

local function pairs_of(list)
  local map = {}
  for i = 1, #list, 2 do map[list[i]] = list[i + 1] end
  return map
end

-- The history of the data, as this server has it: another after a failover or a restart, which may have lost some.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''

local clock = redis.call('TIME')
local now_ms = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local stream_ms = now_ms
local oldest_pending, last_delivered, stalled = '', '0-0', false
local newest = pairs_of(redis.call('XINFO', 'STREAM', INPUT))['last-generated-id']
for _, group in ipairs(redis.call('XINFO', 'GROUPS', INPUT)) do
  local info = pairs_of(group)
  if info['name'] == GROUP then last_delivered = info['last-delivered-id'] end
end
if last_delivered ~= newest then stream_ms = ms_of(last_delivered) end
local pending = redis.call('XPENDING', INPUT, GROUP)
if pending[1] > 0 then
  oldest_pending = pending[2]
  stream_ms = math.min(stream_ms, ms_of(oldest_pending))
  stalled = redis.call('XPENDING', INPUT, GROUP, oldest_pending, oldest_pending, 1)[1][3] > STALLED_MS
end

local passed_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', stalled and '+inf' or passed_ms, 'LIMIT', 0, AT_MOST)
local idle = redis.call('ZRANGEBYSCORE', OPEN, '-inf', '(' .. string.format('%.0f', stream_ms - IDLE_TIMEOUT_MS),
  'WITHSCORES', 'LIMIT', 0, AT_MOST)
local too_many = math.min(redis.call('ZCARD', OPEN) - OPEN_AT_MOST, AT_MOST)
local surplus = too_many > 0 and redis.call('ZRANGE', OPEN, 0, too_many - 1, 'WITHSCORES') or {}
local low_water = {oldest_pending, last_delivered, stalled}
return cmsgpack.pack({low_water, string.format('%.0f', now_ms), ready, idle, surplus, history})
