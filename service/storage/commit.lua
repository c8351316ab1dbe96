#!lua
-- Makes a batch's effects durable and acknowledges it, all or nothing.
--
-- A script has no rollback, so it checks before it writes; `#!lua` has the server refuse it whole when
-- it is out of memory. A second run with the same batch changes nothing: events are a set, alerts are
-- keyed, and what is not (counts, dead letters) is done only for entries that this run acknowledges.
--
-- KEYS  1 input stream   2 dead letters   3 alerts   4 counts   5 open   6 waiting
--       7… states and logs, by the numbers in the plan
-- ARGV  1 consumer group
--       2 the plan, MessagePack:
--         entries       the batch's entry ids
--         dead_letters  {entry, fields}          entry: number in `entries`, from 0
--         counts        {type, {entry, …}}       events without a handler
--         touched       {ms, member, …}          responses that such events came of
--         responses     {state, member, latest_ms, entries {entry, …}, registers {name, value}, endings {field, blob},
--                        closing_ms, parts {field, log, chunk, bytes_limit, entries, opened}}
--         ttl_ms        how long a state lives without a worker
--         fragments_limit  fragments a part may have
--         ready_at_most  how many responses to name that the low-water mark has passed
--         stalled_ms    a worker that holds an entry for longer is taken for stuck
--       3… blobs, by the numbers in the plan, from 1: chunks and endings
-- Returns MessagePack: {overflowing, acknowledged, opened, late_events, low_water, ready}
--         low_water is {oldest pending entry or '', last delivered entry if nothing is pending,
--         whether the oldest pending one is stuck};
--         parts in overflowing and opened are {response, part}, their numbers in the plan, from 0;
--         if any overflow, nothing was written.
--
-- A state's fields: part:<part> <bytes>:<fragments> of its log (a fragment that came twice counts once), or
-- done; alerted:<part>, ctx:<name> a register (the smallest wins),
-- end:<arrival> an ending, version: counts the closings and endings that came.

local INPUT, DEAD_LETTERS, ALERTS, COUNTS, OPEN, WAITING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local GROUP = ARGV[1]
local plan = cmsgpack.unpack(ARGV[2])

local function blob(number)
  return ARGV[number + 2]
end

local function size_of(part)
  local bytes, fragments = string.match(part or '', '^(%d+):(%d+)$')
  return tonumber(bytes or 0), tonumber(fragments or 0)
end

local TYPES_AT_MOST = 1000
local ARGUMENTS_AT_MOST = 1000

local function in_slices(list, call)
  for first = 1, #list, ARGUMENTS_AT_MOST do
    call(unpack(list, first, math.min(first + ARGUMENTS_AT_MOST - 1, #list)))
  end
end

-- Check: the group is there (an error otherwise), and no part grows beyond its limits.
redis.call('XPENDING', INPUT, GROUP)
local overflowing, known = {}, {}
for r, response in ipairs(plan.responses) do
  local names = {}
  for _, part in ipairs(response.parts) do names[#names + 1] = 'part:' .. part.field end
  for _, register in ipairs(response.registers) do names[#names + 1] = 'ctx:' .. register.name end
  known[r] = {}
  in_slices(names, function(...)
    for _, value in ipairs(redis.call('HMGET', KEYS[response.state], ...)) do
      table.insert(known[r], value)
    end
  end)
  for p, part in ipairs(response.parts) do
    local bytes, fragments = size_of(known[r][p])
    part.bytes, part.fragments = bytes + #blob(part.chunk), fragments
    local too_many = fragments + #part.entries > plan.fragments_limit
    if known[r][p] ~= 'done' and (part.bytes > part.bytes_limit or too_many) then
      overflowing[#overflowing + 1] = {r - 1, p - 1}
    end
  end
end
if #overflowing > 0 then
  return cmsgpack.pack({overflowing, 0, {}, 0, {'', '0-0', false}, {}})
end

-- Acknowledge, one by one: some may have been acknowledged before, by a worker that took them over, or by a
-- first run whose reply was lost.
local fresh, acknowledged = {}, 0
for e, id in ipairs(plan.entries) do
  if redis.call('XACK', INPUT, GROUP, id) == 1 then
    fresh[e - 1] = true
    acknowledged = acknowledged + 1
  end
end

local function fresh_among(entries)
  local n = 0
  for _, entry in ipairs(entries) do
    if fresh[entry] then n = n + 1 end
  end
  return n
end

local function count(name, n)
  if n > 0 and redis.call('HINCRBY', COUNTS, name, n) == n and redis.call('HLEN', COUNTS) > TYPES_AT_MOST then
    redis.call('HDEL', COUNTS, name)
    redis.call('HINCRBY', COUNTS, 'type:(other)', n)
  end
end

for _, letter in ipairs(plan.dead_letters) do
  if fresh[letter.entry] then redis.call('XADD', DEAD_LETTERS, '*', unpack(letter.fields)) end
end
for _, counted in ipairs(plan.counts) do
  count('type:' .. counted.type, fresh_among(counted.entries))
end

-- Responses. One of which all entries were acknowledged before is left alone: its effects are stored, or were
-- so long ago that even its finished texts are forgotten.
local opened, late_events, active, candidates = {}, 0, {}, {}

local function apply(r, response)
  local state = KEYS[response.state]
  local set, alive = {}, #response.endings > 0

  for p, part in ipairs(response.parts) do
    if known[r][p] == 'done' then
      late_events = late_events + fresh_among(part.entries)
    else
      alive = true
      redis.call('APPEND', KEYS[part.log], blob(part.chunk))
      redis.call('PEXPIRE', KEYS[part.log], plan.ttl_ms)
      set[#set + 1] = 'part:' .. part.field
      set[#set + 1] = part.bytes .. ':' .. part.fragments + fresh_among(part.entries)
      if part.opened and redis.call('HSETNX', state, 'alerted:' .. part.field, '1') == 1 then
        redis.call('XADD', ALERTS, '*', unpack(part.opened))
        opened[#opened + 1] = {r - 1, p - 1}
      end
    end
  end
  for c, register in ipairs(response.registers) do
    local before = known[r][#response.parts + c]
    if not before or register.value < before then
      set[#set + 1] = 'ctx:' .. register.name
      set[#set + 1] = register.value
    end
    alive = alive or not before
  end
  for _, ending in ipairs(response.endings) do
    set[#set + 1] = 'end:' .. ending.field
    set[#set + 1] = blob(ending.blob)
  end
  if #set > 0 then
    in_slices(set, function(...) redis.call('HSET', state, ...) end)
    redis.call('PEXPIRE', state, plan.ttl_ms)
  end
  if alive then
    active[#active + 1] = response.latest_ms
    active[#active + 1] = response.member
    if response.closing_ms then
      redis.call('HINCRBY', state, 'version', 1)
      redis.call('ZADD', WAITING, 'LT', response.closing_ms, response.member)
    end
    candidates[#candidates + 1] = response.member
  end
end

for r, response in ipairs(plan.responses) do
  if fresh_among(response.entries) > 0 then apply(r, response) end
end
if late_events > 0 then redis.call('HINCRBY', COUNTS, 'late', late_events) end
in_slices(active, function(...) redis.call('ZADD', OPEN, 'GT', ...) end)
in_slices(plan.touched, function(...) redis.call('ZADD', OPEN, 'XX', 'GT', ...) end)

-- What can be finished now: what the low-water mark has passed and, while another worker is stuck with
-- older entries, also what this batch touched, for it may be certain without them.
local oldest_pending, last_delivered, stalled = '', '0-0', false
local pending = redis.call('XPENDING', INPUT, GROUP)
if pending[1] > 0 then
  oldest_pending = pending[2]
  local oldest = redis.call('XPENDING', INPUT, GROUP, oldest_pending, oldest_pending, 1)[1]
  stalled = oldest[3] > plan.stalled_ms
else
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', INPUT)) do
    if info[2] == GROUP then last_delivered = info[8] end
  end
end
local passed_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', passed_ms, 'LIMIT', 0, plan.ready_at_most)
if stalled then
  local listed = {}
  for _, member in ipairs(ready) do listed[member] = true end
  in_slices(candidates, function(...)
    for i, score in ipairs(redis.call('ZMSCORE', WAITING, ...)) do
      local member = select(i, ...)
      if score and not listed[member] then ready[#ready + 1] = member end
    end
  end)
end
local low_water = {oldest_pending, last_delivered, stalled}
return cmsgpack.pack({overflowing, acknowledged, opened, late_events, low_water, ready})
