#!lua
-- Stores a batch's effects and acknowledges it, in one step; says what can be finished now.
--
-- KEYS  1 input stream   2 dead letters   3 alerts   4 counts   5 open   6 waiting
--       7… states and logs, by the numbers in the plan; then the logs that only grow
-- ARGV  1 consumer group
--       2 the batch's entry ids, separated by blanks
--       3 the plan, MessagePack, everything in it by position (see the names below)
--       4 whose is whose, MessagePack, read only where some entries were acknowledged before: entries by their
--         number in the batch, from 0: {responses {{parts {{entry, …}, …}, others {entry, …}}, …},
--         counts {{entry, …}, …}, logs that only grow {{entry, …}, …}}
--       5… blobs, by the numbers in the plan, from 1: chunks, endings, notes; then a chunk for each log that only grows
-- Returns {MessagePack {overflowing, acknowledged, opened, late_events, low_water, ready, forgotten, refused, history,
--         moved, still_there, contradicted}, loaded, …}
--         low_water is {oldest pending entry or '', last delivered entry if nothing is pending,
--         whether the oldest pending one is stuck};
--         parts in overflowing and opened are {response, part}, their numbers in the plan, from 0;
--         forgotten: responses of which the worker left out what it thought to be stored, and it is not;
--         refused: logs that do not only grow, {log, its bytes}, from 0: they are gone (0 bytes), or near a limit;
--         history: which one of the data this is; moved: it is not the one that the plan is for, and still_there has
--         the entries that it knows, by their numbers, from 0;
--         contradicted: {response, part, digest, {register's field, value, …}}, finished parts whose text has this
--         digest, and for which the batch has another text, but no alert about it;
--         if anything is overflowing, forgotten, refused or contradicted, or it has moved, nothing was written;
--         loaded: of ready responses all of whose open logs are in KEYS, {response, the state's fields and values,
--         {field, log, …}}; ready names only the others
--
-- A state's fields: part:<part> is open or done; size:<part> <bytes>:<fragments>, how far the log of a huge part
-- was counted; alerted:<part>; ctx:<name> a register (the smallest wins); end:<arrival> an ending; note:<arrival>
-- rare attributes of a closing or an ending; digest:<part> of a finished text; contradicted:<part> if the alert about
-- another text was raised; version counts the closings and endings that came.
-- A marker takes the place of the state when a response is over: see settle.lua.

local INPUT, DEAD_LETTERS, ALERTS, COUNTS, OPEN, WAITING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local GROUP = ARGV[1]
local TTL_MS, FRAGMENTS_LIMIT, FRAGMENT_BYTES, READY_AT_MOST, STALLED_MS, LETTERS, TYPES, TOUCHED, RESPONSES,
  LOG_COUNT, LOG_LIMIT, LOG_PREFIX, ACTIVE, HISTORY = unpack(cmsgpack.unpack(ARGV[3]))
-- Logs that only grow: LOG_COUNT of them, each with at most LOG_LIMIT bytes; a key's first LOG_PREFIX bytes are no name.
-- Nothing else is new of their responses, except that ACTIVE says {until when they are not idle, member, …}.
local FIRST_LOG, FIRST_CHUNK = #KEYS - LOG_COUNT, #ARGV - LOG_COUNT
-- HISTORY: the one of which the worker knows what is stored; '' if it knows nothing.
-- Of a response. TOLD: registers were left out, because they are stored.
local STATE, MARKER, MEMBER, LATEST_MS, TOLD, CLOSING_MS, PARTS, REGISTERS, ENDINGS, NOTES = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
-- Of a part, nine values each. KNOWN: the log should be there, and will not expire soon. LIMIT: bytes it may have.
-- DIGESTS: of the texts in the batch's closings. CONTRADICTED: the alert about another text, or false.
local LOG, CHUNK, FIELD, FRAGMENTS, KNOWN, LIMIT, OPENED, DIGESTS, CONTRADICTED, WIDTH = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9

local function blob(number)
  return ARGV[number + 4]
end

local TYPES_AT_MOST, LEFT_OUT_AT_MOST = 1000, 200
-- A log up to so many bytes is written anew as it grows: APPEND would give it twice the room it needs.
local EXACT_BYTES = 2048
local ARGUMENTS_AT_MOST = 1000

local function in_slices(list, call)
  for first = 1, #list, ARGUMENTS_AT_MOST do
    call(unpack(list, first, math.min(first + ARGUMENTS_AT_MOST - 1, #list)))
  end
end

local function varint(data, at)
  local number, scale = 0, 1
  while true do
    local byte = string.byte(data, at)
    at = at + 1
    if byte < 128 then return number + byte * scale, at end
    number = number + (byte - 128) * scale
    scale = scale * 128
  end
end

-- `bytes` is the log's length before; returns its length after.
local function append(log, bytes, chunk)
  if bytes == 0 or bytes + #chunk > EXACT_BYTES then return redis.call('APPEND', log, chunk) end
  redis.call('SET', log, redis.call('GET', log) .. chunk, 'KEEPTTL')
  return bytes + #chunk
end

-- The fragments in a log, chunk by chunk; how far it was counted is kept.
local function fragments_in(state, field, log)
  local bytes, fragments = string.match(redis.call('HGET', state, 'size:' .. field) or '0:0', '^(%d+):(%d+)$')
  bytes, fragments = tonumber(bytes), tonumber(fragments)
  local data, at = redis.call('GETRANGE', log, bytes, -1), 1
  while at <= #data do
    local length, count
    length, at = varint(data, at)
    count, at = varint(data, at)
    at, fragments = at + length, fragments + count
  end
  if fragments > 0 then redis.call('HSET', state, 'size:' .. field, bytes + #data .. ':' .. fragments) end
  return fragments
end

-- Returns the state's fields that a response's marker stands for; nil if there is a state, or no marker.
local function remembered(response)
  if redis.call('EXISTS', KEYS[response[STATE]]) == 1 then return nil end
  local packed = redis.call('GET', KEYS[response[MARKER]])
  if not packed then return nil end
  local marker, fields = cmsgpack.unpack(packed), {}
  if marker[1] == 1 then fields['over'] = '1' end
  for _, alert_type in ipairs(marker[2]) do fields['alerted:' .. alert_type] = '1' end
  for i = 3, #marker, 2 do
    local part, contradicted, digest = marker[i], string.match(marker[i + 1], '^(!?)(.*)$')
    fields['part:' .. part] = 'done'
    if digest ~= '' then fields['digest:' .. part] = digest end
    if contradicted == '!' then fields['contradicted:' .. part] = '1' end
  end
  return fields
end

-- The history of the data, as this server has it: another after a failover or a restart, which may have lost some.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''

-- Check: the group is there (an error otherwise), this is the worker's history, no part grows beyond its limits,
-- nothing that was left out is gone.
redis.call('XPENDING', INPUT, GROUP)
if HISTORY ~= '' and HISTORY ~= history then
  local still_there, n = {}, 0
  for id in string.gmatch(ARGV[2], '%S+') do
    if #redis.call('XRANGE', INPUT, id, id) > 0 then still_there[#still_there + 1] = n end
    n = n + 1
  end
  return {cmsgpack.pack({{}, 0, {}, 0, {'', '0-0', false}, {}, {}, {}, history, true, still_there, {}})}
end

local overflowing, forgotten, contradicted, is_done, markers = {}, {}, {}, {}, {}

-- Returns a field of a response's state, or its value in the marker; false or nil if there is none.
local function stored(r, field)
  if markers[r] == nil then markers[r] = remembered(RESPONSES[r]) or false end
  if markers[r] then return markers[r][field] end
  return redis.call('HGET', KEYS[RESPONSES[r][STATE]], field)
end

local function registers_of(r)
  local fields, registers = redis.call('HGETALL', KEYS[RESPONSES[r][STATE]]), {}
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'ctx:' then
      registers[#registers + 1] = fields[i]
      registers[#registers + 1] = fields[i + 1]
    end
  end
  return registers
end

-- Adds a finished part to `contradicted` if the batch has another text for it, and no alert about that was raised.
local function compare(r, parts, p)
  local known = stored(r, 'digest:' .. parts[p + FIELD])
  if not known or parts[p + CONTRADICTED] or stored(r, 'contradicted:' .. parts[p + FIELD]) then return end
  for _, digest in ipairs(parts[p + DIGESTS]) do
    if digest ~= known then
      contradicted[#contradicted + 1] = {r - 1, (p - 1) / WIDTH, known, registers_of(r)}
      return
    end
  end
end

for r, response in ipairs(RESPONSES) do
  local state, parts, gone, done = KEYS[response[STATE]], response[PARTS], false, {}
  for p = 1, #parts, WIDTH do
    local log, chunk = KEYS[parts[p + LOG]], blob(parts[p + CHUNK])
    local bytes = redis.call('STRLEN', log)
    if bytes == 0 then
      done[p] = stored(r, 'part:' .. parts[p + FIELD]) == 'done'
      if done[p] then compare(r, parts, p) end
      local left_out = parts[p + KNOWN] or (response[TOLD] and redis.call('EXISTS', state) == 0)
      gone = gone or (left_out and not done[p])
    end
    if not done[p] then
      local too_many = bytes + #chunk > FRAGMENTS_LIMIT * FRAGMENT_BYTES
        and fragments_in(state, parts[p + FIELD], log) + parts[p + FRAGMENTS] > FRAGMENTS_LIMIT
      if bytes + #chunk > parts[p + LIMIT] or too_many then
        overflowing[#overflowing + 1] = {r - 1, (p - 1) / WIDTH}
      end
    end
  end
  if #parts == 0 then
    stored(r, 'over')
    gone = response[TOLD] and redis.call('EXISTS', state) == 0
  end
  if gone then forgotten[#forgotten + 1] = r - 1 end
  is_done[r] = done
end
local refused, sizes = {}, {}
for l = 1, LOG_COUNT do
  local bytes = redis.call('STRLEN', KEYS[FIRST_LOG + l])
  sizes[l] = bytes
  if bytes == 0 or bytes + #ARGV[FIRST_CHUNK + l] > LOG_LIMIT then refused[#refused + 1] = {l - 1, bytes} end
end
if #overflowing > 0 or #forgotten > 0 or #refused > 0 or #contradicted > 0 then
  return {cmsgpack.pack({overflowing, 0, {}, 0, {'', '0-0', false}, {}, forgotten, refused, history, false, {},
    contradicted})}
end

-- Acknowledge, one by one: some may have been acknowledged before, by a worker that took them over, or by a
-- first run whose reply was lost.
local fresh, acknowledged, entries = {}, 0, 0
for id in string.gmatch(ARGV[2], '%S+') do
  if redis.call('XACK', INPUT, GROUP, id) == 1 then
    fresh[entries] = true
    acknowledged = acknowledged + 1
  end
  entries = entries + 1
end
local WHOSE = acknowledged < entries and cmsgpack.unpack(ARGV[4]) or nil

local function fresh_among(list)
  local n = 0
  for _, entry in ipairs(list) do
    if fresh[entry] then n = n + 1 end
  end
  return n
end

-- How many fields the counts name that were left out; found out once, and only if there is a new one.
local left_out_names
local function one_more_left_out()
  if left_out_names then
    left_out_names = left_out_names + 1
  else
    left_out_names = 0
    for _, name in ipairs(redis.call('HKEYS', COUNTS)) do
      if string.sub(name, 1, 9) == 'left_out:' then left_out_names = left_out_names + 1 end
    end
  end
  return left_out_names
end

-- Producers choose the names of types, and handlers those of fields, so there is a bound for both; the other names
-- are few.
local function count(name, n)
  if n == 0 then return end
  if redis.call('HINCRBY', COUNTS, name, n) ~= n then return end
  local kind = string.match(name, '^%a[%a_]*:')
  if (kind == 'type:' and redis.call('HLEN', COUNTS) > TYPES_AT_MOST)
    or (kind == 'left_out:' and one_more_left_out() > LEFT_OUT_AT_MOST) then
    redis.call('HDEL', COUNTS, name)
    if kind == 'left_out:' then left_out_names = left_out_names - 1 end
    redis.call('HINCRBY', COUNTS, kind .. '(other)', n)
  end
end

for l = 1, #LETTERS, 2 do
  if fresh[LETTERS[l]] then redis.call('XADD', DEAD_LETTERS, '*', unpack(LETTERS[l + 1])) end
end
for t = 1, #TYPES, 2 do
  count(TYPES[t], WHOSE and fresh_among(WHOSE[2][(t + 1) / 2]) or TYPES[t + 1])
end

-- Responses. One of which all entries were acknowledged before is left alone: its effects are stored, or were
-- so long ago that even its finished texts are forgotten.
local opened, late_events, active, candidates = {}, 0, {}, {}

local function add(r, state, parts, p)
  local field, log, chunk = parts[p + FIELD], KEYS[parts[p + LOG]], blob(parts[p + CHUNK])
  if append(log, redis.call('STRLEN', log), chunk) == #chunk then redis.call('HSET', state, 'part:' .. field, 'open') end
  if not parts[p + KNOWN] then
    redis.call('PEXPIRE', log, TTL_MS)
    redis.call('PEXPIRE', state, TTL_MS)
  end
  if parts[p + OPENED] and redis.call('HSETNX', state, 'alerted:' .. field, '1') == 1 then
    redis.call('XADD', ALERTS, '*', unpack(parts[p + OPENED]))
    opened[#opened + 1] = {r - 1, (p - 1) / WIDTH}
  end
end

-- Keeps the smaller one of each; whether there was one that is new.
local function note(state, registers)
  local any_new = false
  for n = 1, #registers, 2 do
    local name, value = 'ctx:' .. registers[n], registers[n + 1]
    local before = redis.call('HGET', state, name)
    if not before or value < before then redis.call('HSET', state, name, value) end
    any_new = any_new or not before
  end
  return any_new
end

local function contradict(state, part, alert)
  if alert and redis.call('HSETNX', state, 'contradicted:' .. part, '1') == 1 then
    redis.call('XADD', ALERTS, '*', unpack(alert))
    redis.call('HINCRBY', COUNTS, 'contradicted', 1)
  end
end

local function apply(r, response)
  local state, parts, endings, notes = KEYS[response[STATE]], response[PARTS], response[ENDINGS], response[NOTES]
  local alive = #endings > 0 or #notes > 0
  if markers[r] then -- rebuild the state from the marker; it expires again after the response is settled
    for field, value in pairs(markers[r]) do redis.call('HSET', state, field, value) end
    redis.call('PEXPIRE', state, TTL_MS)
    alive = true
  end
  for p = 1, #parts, WIDTH do
    if is_done[r][p] then
      local n = parts[p + FRAGMENTS]
      late_events = late_events + (WHOSE and fresh_among(WHOSE[1][r][1][(p - 1) / WIDTH + 1]) or n)
      contradict(state, parts[p + FIELD], parts[p + CONTRADICTED])
    else
      alive = true
      add(r, state, parts, p)
    end
  end
  alive = note(state, response[REGISTERS]) or alive
  for e = 1, #endings, 2 do redis.call('HSET', state, 'end:' .. endings[e], blob(endings[e + 1])) end
  if alive then
    for n = 1, #notes, 2 do redis.call('HSET', state, 'note:' .. notes[n], blob(notes[n + 1])) end
  end
  if #endings > 0 or #notes > 0 or #response[REGISTERS] > 0 then redis.call('PEXPIRE', state, TTL_MS) end
  if alive then
    active[#active + 1] = response[LATEST_MS]
    active[#active + 1] = response[MEMBER]
    if response[CLOSING_MS] then
      redis.call('HINCRBY', state, 'version', 1)
      redis.call('ZADD', WAITING, 'LT', response[CLOSING_MS], response[MEMBER])
    end
    candidates[#candidates + 1] = response[MEMBER]
  end
end

local function any_fresh(whose)
  for _, entries_of_part in ipairs(whose[1]) do
    if fresh_among(entries_of_part) > 0 then return true end
  end
  return fresh_among(whose[2]) > 0
end

for r, response in ipairs(RESPONSES) do
  if not WHOSE or any_fresh(WHOSE[1][r]) then apply(r, response) end
end
for l = 1, LOG_COUNT do
  if not WHOSE or fresh_among(WHOSE[3][l]) > 0 then
    append(KEYS[FIRST_LOG + l], sizes[l], ARGV[FIRST_CHUNK + l])
  end
end
if late_events > 0 then redis.call('HINCRBY', COUNTS, 'late', late_events) end
in_slices(active, function(...) redis.call('ZADD', OPEN, 'GT', ...) end)
in_slices(ACTIVE, function(...) redis.call('ZADD', OPEN, 'GT', ...) end)
in_slices(TOUCHED, function(...) redis.call('ZADD', OPEN, 'XX', 'GT', ...) end)

-- What can be finished now: what the low-water mark has passed and, while another worker is stuck with
-- older entries, also what this batch touched, for it may be certain without them.
local oldest_pending, last_delivered, stalled = '', '0-0', false
local pending = redis.call('XPENDING', INPUT, GROUP)
if pending[1] > 0 then
  oldest_pending = pending[2]
  local oldest = redis.call('XPENDING', INPUT, GROUP, oldest_pending, oldest_pending, 1)[1]
  stalled = oldest[3] > STALLED_MS
else
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', INPUT)) do
    if info[2] == GROUP then last_delivered = info[8] end
  end
end
local passed_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', passed_ms, 'LIMIT', 0, READY_AT_MOST)
if stalled then
  for l = 1, LOG_COUNT do
    candidates[#candidates + 1] = string.match(KEYS[FIRST_LOG + l], '^(.*):%d+:%d+:[%l_]+$', LOG_PREFIX + 1)
  end
  local listed = {}
  for _, member in ipairs(ready) do listed[member] = true end
  in_slices(candidates, function(...)
    for i, score in ipairs(redis.call('ZMSCORE', WAITING, ...)) do
      local member = select(i, ...)
      if score and not listed[member] then
        listed[member] = true
        ready[#ready + 1] = member
      end
    end
  end)
end

-- Of a response in this batch, its state and its open logs; nil if a log is open that KEYS does not have.
local function load(r)
  local response = RESPONSES[r]
  local logs, parts = {}, response[PARTS]
  for p = 1, #parts, WIDTH do logs['part:' .. parts[p + FIELD]] = KEYS[parts[p + LOG]] end
  local state, chunks = redis.call('HGETALL', KEYS[response[STATE]]), {}
  for f = 1, #state, 2 do
    if state[f + 1] == 'open' and string.sub(state[f], 1, 5) == 'part:' then
      if not logs[state[f]] then return nil end
      chunks[#chunks + 1] = string.sub(state[f], 6)
      chunks[#chunks + 1] = redis.call('GET', logs[state[f]])
    end
  end
  return {r - 1, state, chunks}
end

local numbers, loaded, others = {}, {}, {}
if #ready > 0 then
  for r, response in ipairs(RESPONSES) do numbers[response[MEMBER]] = r end
end
for _, member in ipairs(ready) do
  local found = numbers[member] and load(numbers[member])
  if found then loaded[#loaded + 1] = found else others[#others + 1] = member end
end
local low_water = {oldest_pending, last_delivered, stalled}
return {cmsgpack.pack({{}, acknowledged, opened, late_events, low_water, others, {}, {}, history, false, {}, {}}),
  unpack(loaded)}
