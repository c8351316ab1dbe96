-- Functions that all scripts share. `scripts.source` inserts this file after the first line of a script.

-- End the script with an error reply, as a failed command would.
local function refuse(message)
  error(redis.error_reply(message))
end

-- End the script if its user may not run a command with this key and these arguments, or the server does not know the
-- command. Any key of the call serves for the check, because the server rejects a call with a key that the user may
-- not access.
local function must_be_allowed(command, key, ...)
  if not redis.acl_check_cmd(command, key, ...) then
    refuse('NOPERM this user may not run the command ' .. string.lower(command) .. ' on the key ' .. key)
  end
end

-- End the script if the key exists and has another type.
local function must_be_a(kind, key)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    refuse('WRONGTYPE the key ' .. key .. ' is a ' .. found .. ', not a ' .. kind)
  end
end

-- Return the server's time in milliseconds since the epoch. INFO is for users who may not run TIME.
local function server_ms()
  local time = redis.pcall('TIME')
  if time[1] then return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) end
  local microseconds = string.match(redis.call('INFO', 'server'), 'server_time_usec:(%d+)')
  return math.floor(tonumber(microseconds) / 1000)
end

-- Return the server's replication id, or '' if INFO is not permitted. The id changes with each failover or restart,
-- either of which may have lost data.
local function current_replication_id()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end

-- Return the milliseconds and the sequence number of an entry id.
local function numbers_of(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- Return true if an entry id is less than another.
local function before(id, other)
  local ms, seq = numbers_of(id)
  local other_ms, other_seq = numbers_of(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

-- Return the smallest entry id of this age, with the server's time rounded down to a second.
local function id_of_age(ms)
  return string.format('%.0f-0', math.max(math.floor(server_ms() / 1000) * 1000 - ms, 0))
end

-- Find the group that is furthest behind, among those with this name prefix (with `whole`: of this name). Return three
-- values: its oldest pending entry, or its last delivered one if none is pending; true if that entry is pending; and
-- the group. Return nil if there is no such group.
local function needed_of(stream, prefix, whole)
  local needed, is_pending, slowest
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group, last_delivered = info[2], info[8]
    if group == prefix or (not whole and string.sub(group, 1, #prefix) == prefix) then
      local pending = redis.call('XPENDING', stream, group)
      local first = pending[1] > 0 and pending[2] or last_delivered
      if not needed or before(first, needed) then
        needed, is_pending, slowest = first, pending[1] > 0, group
      end
    end
  end
  return needed, is_pending, slowest
end

-- Return the id of the last entry that was delivered to a group; 0-0 if the stream has no such group.
local function last_delivered_of(stream, group)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then return info[8] end
  end
  return '0-0'
end

local OWNED_AT_MOST = 1000

-- Return four values about a group's pending entries. `owners` is a hash from entry id to the response that the entry
-- belongs to.
--   1 id of the oldest pending entry that is not in `owners`; '' if there is none. At most OWNED_AT_MOST owners are
--     looked up; the next entry counts as one without an owner
--   2 true if a worker is stuck with that entry: it has held the entry for more than `stalled_ms`
--   3 the older pending entries that are in `owners`: {{id, response, true if a worker is stuck with it}, …}
--   4 id of the oldest pending entry; '' if none is pending
local function oldest_pending_of(stream, group, stalled_ms, owners)
  local pending = redis.call('XPENDING', stream, group)
  if pending[1] == 0 then return '', false, {}, '' end
  local count = redis.call('EXISTS', owners) == 1 and OWNED_AT_MOST or 0
  local entries, ids, owned = redis.call('XPENDING', stream, group, '-', '+', count + 1), {}, {}
  for n = 1, math.min(count, #entries) do ids[n] = entries[n][1] end
  local members = #ids > 0 and redis.call('HMGET', owners, unpack(ids)) or {}
  for n, entry in ipairs(entries) do
    local stuck = entry[3] > stalled_ms
    if not members[n] then return entry[1], stuck, owned, pending[2] end
    owned[#owned + 1] = {entry[1], members[n], stuck}
  end
  return '', false, owned, pending[2]
end

-- Return `members`, a list of responses, without those that must wait for a pending entry of their own (in `owned`). A
-- response waits if the ms of its entry are below its score in `waiting`. If a worker is stuck with the entry, the
-- response may have a certain text: with `keep_stuck` it stays in the list.
local function without_owned(members, owned, waiting, keep_stuck)
  if #owned == 0 then return members end
  local oldest, rest = {}, {}
  for _, entry in ipairs(owned) do oldest[entry[2]] = oldest[entry[2]] or entry end
  for _, member in ipairs(members) do
    local entry = oldest[member]
    local waits = entry and tonumber(redis.call('ZSCORE', waiting, member)) > numbers_of(entry[1])
    if not waits or (entry[3] and keep_stuck) then rest[#rest + 1] = member end
  end
  return rest
end

local ARGUMENTS_AT_MOST = 1000

-- Call a function with a list's values as arguments, at most 1,000 per call.
local function in_slices(list, call)
  for first = 1, #list, ARGUMENTS_AT_MOST do
    call(unpack(list, first, math.min(first + ARGUMENTS_AT_MOST - 1, #list)))
  end
end

-- Add to a field of a hash of counts. A value that is not an integer is replaced, so that it never fails the script.
local function add_to(counts, name, n)
  local sum = redis.pcall('HINCRBY', counts, name, n)
  if type(sum) == 'number' then return end
  redis.call('HSET', counts, name, n)
end

-- The sorted sets of names that were full in this run; none of them shrinks.
local is_full = {}

-- Add to the weight of a name in a sorted set of at most `at_most` names. If the set is full and does not have the name,
-- the name replaces the one with the lowest weight, inherits that weight (the Space-Saving algorithm), and the replaced
-- name is returned. So frequent names stay, and rare ones are replaced.
local function add_weight(weights, at_most, name, n)
  if not is_full[weights] then is_full[weights] = redis.call('ZCARD', weights) >= at_most end
  if not is_full[weights] or redis.call('ZSCORE', weights, name) then
    redis.call('ZINCRBY', weights, n, name)
    return nil
  end
  local lightest, weight = unpack(redis.call('ZPOPMIN', weights))
  redis.call('ZADD', weights, weight + n, name)
  return lightest
end

-- Add to the count of a name from outside. At most `at_most` names are kept, by weight. Return the count of a name that
-- was removed, which the caller adds to those of `(other)`; usually 0.
local function add_to_bounded(counts, weights, at_most, name, n)
  local lightest, removed = add_weight(weights, at_most, name, n), 0
  if lightest then
    removed = tonumber(redis.call('HGET', counts, lightest) or '0') or 0
    redis.call('HDEL', counts, lightest)
  end
  add_to(counts, name, n)
  return math.max(removed, 0)
end
