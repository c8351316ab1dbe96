#!lua
-- Looks for what no batch will settle: responses passed by the low-water mark, and idle ones.
--
-- Idle is measured in the stream's own time: what lies unread in the input has not yet come, however long
-- ago it was written. That time is the server's clock while nothing is unread.
--
-- KEYS  1 input stream   2 open   3 waiting   4 owners of pending entries
-- ARGV  1 consumer group   2 idle timeout in ms   3 how many ready ones and how many idle ones at most
--       4 a worker that holds an entry for longer than these ms is taken for stuck
--       5 how many responses may be open   6 a random number from 0 to 1   7 how many surplus ones at most
-- Returns MessagePack: {low_water, now_ms, ready, idle {member, latest_ms, …}, surplus likewise, history,
--         whether there may be more ready ones}
--         low_water and history as in commit.lua

local INPUT, OPEN, WAITING, OWNERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local GROUP, IDLE_TIMEOUT_MS, AT_MOST = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local STALLED_MS, OPEN_AT_MOST, PLACE, SURPLUS_AT_MOST = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]),
  tonumber(ARGV[7])

local function ms_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- Returns true if a group has entries to read behind this id. Only if the server does not know, this looks at the next
-- one. XINFO STREAM would tell too; but either would copy entries, and these may be large.
local function has_more(stream, group, id)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local lag = info[12]
    if info[2] == group and lag then return lag > 0 end
  end
  return #redis.call('XRANGE', stream, '(' .. id, '+', 'COUNT', 1) > 0
end

local history = current_history()
local now_ms = server_ms()

-- A producer may have given its entries ids of a time to come: nothing is later than now.
local stream_ms = now_ms
local last_delivered = last_delivered_of(INPUT, GROUP)
local oldest_pending, stalled, owned, oldest = oldest_pending_of(INPUT, GROUP, STALLED_MS, OWNERS)
if has_more(INPUT, GROUP, last_delivered) then stream_ms = math.min(stream_ms, ms_of(last_delivered)) end
if oldest ~= '' then stream_ms = math.min(stream_ms, ms_of(oldest)) end

local passed_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', stalled and '+inf' or passed_ms, 'LIMIT', 0, AT_MOST)
local more = AT_MOST > 0 and #ready >= AT_MOST
ready = without_owned(ready, owned, WAITING, false)
local idle = redis.call('ZRANGEBYSCORE', OPEN, '-inf', '(' .. string.format('%.0f', stream_ms - IDLE_TIMEOUT_MS),
  'WITHSCORES', 'LIMIT', 0, AT_MOST)

-- Those that were silent the longest are too many. If they are more than one look names, workers that look at the same
-- time begin at different ones, so that they do not all do the same.
local too_many = redis.call('ZCARD', OPEN) - OPEN_AT_MOST
local first = math.floor(math.max(too_many - SURPLUS_AT_MOST + 1, 0) * PLACE)
local last = first + math.min(too_many, SURPLUS_AT_MOST) - 1
local surplus = last >= first and redis.call('ZRANGE', OPEN, first, last, 'WITHSCORES') or {}
local low_water = {oldest_pending, last_delivered, stalled, owned}
return cmsgpack.pack({low_water, string.format('%.0f', now_ms), ready, idle, surplus, history, more})
