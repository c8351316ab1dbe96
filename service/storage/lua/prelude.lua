-- Shared by all scripts: `scripts.source` puts it behind a script's first line.

-- Ends the script with an error of the server's kind, as a command of its own would.
local function refuse(message)
  error(redis.error_reply(message))
end

-- Ends the script if its user may not run a command (its name, key and arguments), or the server does not know it.
-- Any key of the call will do: a user without a right to one of them cannot call the script at all.
local function must_be_allowed(command, key, ...)
  if not redis.acl_check_cmd(command, key, ...) then
    refuse('NOPERM this user may not run the command ' .. string.lower(command) .. ' on the key ' .. key)
  end
end

-- Ends the script if there is a key of another type than this.
local function must_be_a(kind, key)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= kind then
    refuse('WRONGTYPE the key ' .. key .. ' is a ' .. found .. ', not a ' .. kind)
  end
end

-- Returns the server's time, in milliseconds since the epoch; a user who may not run TIME may run INFO.
local function server_ms()
  local time = redis.pcall('TIME')
  if time[1] then return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) end
  local microseconds = string.match(redis.call('INFO', 'server'), 'server_time_usec:(%d+)')
  return math.floor(tonumber(microseconds) / 1000)
end

-- Returns the history of the data, as this server has it: another after a failover or a restart, which may have lost
-- some of the data.
local function current_history()
  local info = redis.pcall('INFO', 'replication')
  return type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
end

-- Returns the two numbers of an entry id.
local function numbers_of(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- Returns true if an entry id comes before another.
local function before(id, other)
  local ms, seq = numbers_of(id)
  local other_ms, other_seq = numbers_of(other)
  return ms < other_ms or (ms == other_ms and seq < other_seq)
end

-- Returns the first entry id that is so many ms old.
local function id_of_age(ms)
  return string.format('%.0f-0', math.max(math.floor(server_ms() / 1000) * 1000 - ms, 0))
end

-- Returns what the slowest of a stream's groups still needs, and whether that is pending: its oldest pending entry,
-- else the last one that it was given. Only groups count whose names begin with a prefix; nil if there is none.
local function needed_of(stream, prefix)
  local needed, is_pending
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local group, last_delivered = info[2], info[8]
    if string.sub(group, 1, #prefix) == prefix then
      local pending = redis.call('XPENDING', stream, group)
      local first = pending[1] > 0 and pending[2] or last_delivered
      if not needed or before(first, needed) then needed, is_pending = first, pending[1] > 0 end
    end
  end
  return needed, is_pending
end

-- Returns the last entry that a group was given.
local function last_delivered_of(stream, group)
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    if info[2] == group then return info[8] end
  end
  return '0-0'
end

local OWNED_AT_MOST = 1000

-- Returns a group's oldest pending entry, or the oldest without a known owner, and whether a worker is stuck with it:
-- holds it for longer than some ms; '' and false if there is none. Besides, the older ones with a known owner:
-- {{id, member, whether a worker is stuck with it}, …}; and the oldest of all.
-- OWNERS is a hash of the members by the entries' ids.
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

-- Returns a list of responses without those that wait for an entry of their own. WAITING has the ms for which each
-- waits. A response may have a text that is certain if a worker is stuck with that entry: `even_stuck` leaves it out too.
local function without_owned(members, owned, waiting, even_stuck)
  if #owned == 0 then return members end
  local oldest, rest = {}, {}
  for _, entry in ipairs(owned) do oldest[entry[2]] = oldest[entry[2]] or entry end
  for _, member in ipairs(members) do
    local entry = oldest[member]
    local waits = entry and tonumber(redis.call('ZSCORE', waiting, member)) > numbers_of(entry[1])
    if not waits or (entry[3] and not even_stuck) then rest[#rest + 1] = member end
  end
  return rest
end

local ARGUMENTS_AT_MOST = 1000

-- Calls a function with a list's values as arguments, as many at once as a command may have.
local function in_slices(list, call)
  for first = 1, #list, ARGUMENTS_AT_MOST do
    call(unpack(list, first, math.min(first + ARGUMENTS_AT_MOST - 1, #list)))
  end
end

-- Adds to a field of a hash of counts. One that is no number begins again, so that a count never stops a script.
local function add_to(counts, name, n)
  local sum = redis.pcall('HINCRBY', counts, name, n)
  if type(sum) == 'number' then return end
  redis.call('HSET', counts, name, n)
end

-- Lets a new name of a stranger into a full sorted set of names by their weights: in place of the lightest, which is
-- returned. It weighs as much as that one did and what it brings, so that names which come often stay, and those that
-- no longer come go (the algorithm is called Space-Saving).
local function make_room(weights, at_most, name)
  if redis.call('ZSCORE', weights, name) or redis.call('ZCARD', weights) < at_most then return nil end
  local lightest, weight = unpack(redis.call('ZPOPMIN', weights))
  redis.call('ZADD', weights, weight, name)
  return lightest
end

-- Adds to the count of a name that a stranger chose, `<kind>:<name>`. Only so many names are kept, by their weights; the
-- count of one that goes is added to `<kind>:(other)`.
local function add_to_bounded(counts, weights, at_most, kind, name, n)
  local lightest = make_room(weights, at_most, name)
  if lightest then
    local count = tonumber(redis.call('HGET', counts, lightest) or '0') or 0
    redis.call('HDEL', counts, lightest)
    if count > 0 then add_to(counts, kind .. ':(other)', count) end
  end
  redis.call('ZINCRBY', weights, n, name)
  add_to(counts, name, n)
end
