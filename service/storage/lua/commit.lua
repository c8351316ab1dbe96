#!lua
-- Stores a batch's effects and acknowledges its entries, in one step; says what can be finished now.
--
-- A script has no rollback. So this one goes by phases: it checks all that could end it and writes nothing; it writes
-- what may be written any number of times; it writes what must be written once; it acknowledges; it reports. Whatever
-- ends it before the end leaves the entries pending, and the worker commits them again.
--
-- KEYS  1 input stream   2 dead letters   3 alerts   4 counts   5 open   6 waiting   7 weights of types
--       8 weights of fields left out   9 owners of pending entries
--       10… states, markers and logs, by the numbers in the plan; then the logs that only grow
-- ARGV  1 consumer group   2 consumer
--       3 the batch's entry ids, in order, separated by blanks
--       4 the plan, MessagePack, everything in it by position (see the names below)
--       5 whose is whose, MessagePack, read only where some entries were acknowledged before: entries by their
--         number in the batch, from 0: {responses {{parts {{entry, …}, …}, others {entry, …}}, …},
--         counts {{entry, …}, …}, logs that only grow {{entry, …}, …}}
--       6… blobs, by the numbers in the plan, from 1: chunks, endings, notes, entries of letters; then a chunk for each log
--         that only grows
-- Returns {MessagePack of a map, loaded, …}. If the map has any of these, nothing was written:
--         overflowing   {{response, part}, …}: parts that would have too many bytes or fragments
--         crowded       {{response, part}, …}: parts that would be too many of their response
--         noted_too_often  responses that would have too many endings of items and notes, or texts announced
--         forgotten     responses of which the worker left out what it thought to be stored, and it is not
--         refused       {{log, its bytes}, …}: logs that do not only grow: they are gone (0 bytes), or near a limit
--         contradicted  {{response, part, digest, {register's field, value, …}}, …}: finished parts whose text has this
--                       digest, and for which the batch has another text, but no alert about it
--         still_there   the history is not the one that the plan is for: the entries that it knows
--         Responses, parts, logs and entries go by their numbers in the plan or the batch, from 0. Besides:
--         history       which history of the data this is
--         now_ms        the server's time
--         acknowledged, late_events  how many
--         opened        {{response, part}, …}: whose alert was raised
--         low_water     {oldest pending entry or '', last delivered entry if nothing is pending,
--                       whether a worker is stuck with the oldest pending one, and {{id, member, stuck}, …}: older
--                       pending entries with a known owner}
--         ready         responses to finish, but for those loaded
--         more          whether the low-water mark has passed more than were looked at
--         surplus       how many more responses are open than may be; at most as many as this batch says more of than deltas
--         told_of_crowds  entries whose letter about a response with too many parts was written
--         loaded        of ready responses all of whose open logs are in KEYS: {response, the state's fields and
--                       values, {field, log, …}}
--
-- A state's fields: part:<part> is open or done; parts counts them; large <bytes> of the response beyond LARGE_BYTES of
-- each part; size:<part> <bytes>:<fragments>, how far the log of
-- a huge part was counted; alerted:<part>; ctx:<name> a register (the smallest wins); end:<arrival> an ending;
-- note:<arrival> rare attributes of a closing or an ending; digest:<part> of a finished text; contradicted:<part> if
-- the alert about another text was raised; crowded if the letter about too many parts was written; version counts the
-- closings and endings that came.
-- A marker takes the place of the state when a response is over: see settle.lua.

local INPUT, DEAD_LETTERS, ALERTS, COUNTS, OPEN, WAITING, TYPE_WEIGHTS, FIELD_WEIGHTS, OWNERS = unpack(KEYS, 1, 9)
local GROUP, CONSUMER, FIRST_BLOB = ARGV[1], ARGV[2], 6
local TTL_MS, FRAGMENTS_LIMIT, FRAGMENT_BYTES, PARTS_LIMIT, READY_AT_MOST, STALLED_MS, LETTERS, COUNTED, TOUCHED,
  RESPONSES, LOG_COUNT, LOG_LIMIT, LOG_PREFIX, ACTIVE, HISTORY, ACKNOWLEDGES, OPEN_AT_MOST, LARGE_BYTES, LARGE_LIMIT =
  unpack(cmsgpack.unpack(ARGV[4]))
-- LETTERS: {entry, the letter's fields, its field `entry` (a blob), key of the state of a response that gets one such
-- letter, or 0}.
-- COUNTED: name, how often, …   TOUCHED: latest ms, member, …
-- Logs that only grow: LOG_COUNT of them, each with at most LOG_LIMIT bytes; a key's first LOG_PREFIX bytes are no name.
-- Nothing else is new of their responses, except that ACTIVE says {until when they are not idle, member, …}.
-- HISTORY: the one of which the worker knows what is stored; '' if it knows nothing.
-- LARGE_LIMIT: how many bytes a response may have, but for the first LARGE_BYTES of each part.
-- ACKNOWLEDGES: false for a piece of a batch that another piece follows, with the counts and the letters.
local FIRST_LOG, FIRST_CHUNK = #KEYS - LOG_COUNT, #ARGV - LOG_COUNT
local TYPES_AT_MOST, FIELDS_AT_MOST = 1000, 200
-- A state has so many fields at most for each part that a response may have: whoever ends one item a million times
-- would have all of that read with each batch.
local FIELDS_A_PART = 8
-- So many more, for what a state has once: its context, its alerts, its counters.
local FIELDS_ONCE = 64
-- Only the bytes of a note beyond these count for the bytes of its response.
local NOTE_BYTES = 4096
-- A log up to so many bytes is written anew as it grows: APPEND would give it twice the room it needs.
local EXACT_BYTES = 2048
-- So many bytes of responses are read along with a commit, about: the rest is `ready`.
local LOADED_BYTES = 2 * 1024 * 1024
-- An open response is never noted as later than so many ms from now, whatever id its entries have.
local GRAIN_MS = 1000
local PART_WIDTH = 9

local NOW_MS = server_ms()

-- ---------------------------------------------------------------------------------- what the plan says, by name

local entry_ids = {}
for id in string.gmatch(ARGV[3], '%S+') do entry_ids[#entry_ids + 1] = id end

local function blob(number)
  return ARGV[FIRST_BLOB - 1 + number]
end

-- Returns a part: its log should be there, and will not expire soon, if it is `known`; it may have `limit` bytes;
-- `digests` are those of the texts in the batch's closings; `opened` and `contradicted` are alerts, or false.
local function part_of(values, p)
  local log, chunk, field, fragments, known, limit, opened, digests, contradicted =
    unpack(values, p, p + PART_WIDTH - 1)
  return {
    log = KEYS[log], chunk = blob(chunk), field = field, fragments = fragments, known = known, limit = limit,
    opened = opened, digests = digests, contradicted = contradicted,
  }
end

-- Returns a response. `told`: registers were left out, because they are stored. `latest_ms`: until when it is not idle.
-- `closing_ms`: when the first of its closings came, or false. `notes_count`: how many fields its notes and endings of
-- items take; `announced`: how many texts these give for parts that have just begun.
local function response_of(values)
  local state, marker, member, latest_ms, told, closing_ms, part_values, registers, endings, notes, notes_count,
    announced = unpack(values)
  local parts = {}
  for p = 1, #part_values, PART_WIDTH do parts[#parts + 1] = part_of(part_values, p) end
  return {
    state = KEYS[state], marker_key = KEYS[marker], member = member, latest_ms = latest_ms, told = told,
    closing_ms = closing_ms, parts = parts, registers = registers, endings = endings, notes = notes,
    notes_count = notes_count, announced = announced,
  }
end

local responses = {}
for r, values in ipairs(RESPONSES) do responses[r] = response_of(values) end

-- ------------------------------------------------------------------------------------------------------- check

-- Ends the script if a command is not allowed that may come between the first write and the last. (Whatever ends it
-- after that loses nothing: when the batch is committed again, all of it is stored.)
local function check_rights()
  must_be_allowed('XACK', INPUT, GROUP, '0-1')
  must_be_allowed('HDEL', OWNERS, '')
  must_be_allowed('ZADD', OPEN, '0', '')
  must_be_allowed('GET', OPEN)
  must_be_allowed('SET', OPEN, '', 'KEEPTTL')
  must_be_allowed('APPEND', OPEN, '')
  if #RESPONSES == 0 then return end
  must_be_allowed('ZCARD', OPEN)
  must_be_allowed('HGET', OPEN, '')
  must_be_allowed('HLEN', OPEN)
  must_be_allowed('HSET', OPEN, '', '')
  must_be_allowed('HINCRBY', OPEN, '', '1')
  must_be_allowed('PEXPIRE', OPEN, TTL_MS)
end

-- Ends the script if something is not allowed that must be done once: alerts, counts, dead letters.
local function check_rights_to_write_once(raises_alerts)
  if #LETTERS > 0 then
    must_be_a('stream', DEAD_LETTERS)
    must_be_allowed('XADD', DEAD_LETTERS, '*', '', '')
  end
  if raises_alerts then
    must_be_a('stream', ALERTS)
    must_be_allowed('XADD', ALERTS, '*', '', '')
  end
  must_be_a('hash', COUNTS)
  must_be_a('zset', TYPE_WEIGHTS)
  must_be_a('zset', FIELD_WEIGHTS)
  must_be_allowed('HGET', COUNTS, '')
  must_be_allowed('HSET', COUNTS, '', '')
  must_be_allowed('HSETNX', COUNTS, '', '')
  must_be_allowed('HINCRBY', COUNTS, '', '1')
  must_be_allowed('HDEL', COUNTS, '')
  must_be_allowed('ZSCORE', TYPE_WEIGHTS, '')
  must_be_allowed('ZCARD', TYPE_WEIGHTS)
  must_be_allowed('ZADD', TYPE_WEIGHTS, '0', '')
  must_be_allowed('ZINCRBY', TYPE_WEIGHTS, '1', '')
  must_be_allowed('ZPOPMIN', TYPE_WEIGHTS)
end

local function reply(map, loaded)
  map.now_ms = string.format('%.0f', NOW_MS)
  return {cmsgpack.pack(map), unpack(loaded or {})}
end

local history = current_history()
if HISTORY ~= '' and HISTORY ~= history then
  local still_there = {}
  for n, id in ipairs(entry_ids) do
    if #redis.call('XRANGE', INPUT, id, id) > 0 then still_there[#still_there + 1] = n - 1 end
  end
  return reply({history = history, still_there = still_there})
end

-- Returns the numbers, from 0, of the entries that are still pending, as a set; nil if all of them are: nearly always.
-- Others were acknowledged before, by a worker that took them over, or by a first run whose reply was lost.
local function pending_among(ids)
  -- Between them may be some that this worker has in another batch.
  local count = #ids + OWNED_AT_MOST
  local found = 0
  for _, entry in ipairs(redis.call('XPENDING', INPUT, GROUP, ids[1] or '-', ids[#ids] or '+', count, CONSUMER)) do
    if entry[1] == ids[found + 1] then found = found + 1 end
  end
  if found == #ids then return nil end
  local pending = {}
  for n, id in ipairs(ids) do
    if #redis.call('XPENDING', INPUT, GROUP, id, id, 1) > 0 then pending[n - 1] = true end
  end
  return pending
end

local fresh = pending_among(entry_ids)
local WHOSE_RESPONSES, WHOSE_COUNTS, WHOSE_LOGS
if fresh then WHOSE_RESPONSES, WHOSE_COUNTS, WHOSE_LOGS = unpack(cmsgpack.unpack(ARGV[5])) end

local function fresh_among(list)
  local n = 0
  for _, entry in ipairs(list) do
    if fresh[entry] then n = n + 1 end
  end
  return n
end

-- Returns true if an entry is pending that something of a response came of. If none is, its effects are stored, or
-- were so long ago that even its finished texts are forgotten: then it is left alone.
local function is_fresh(r)
  if not fresh then return true end
  local of_parts, others = unpack(WHOSE_RESPONSES[r])
  for _, entries in ipairs(of_parts) do
    if fresh_among(entries) > 0 then return true end
  end
  return fresh_among(others) > 0
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

-- Returns the fragments in a part's log, and what to note in its state: how far it was counted.
local function fragments_in(response, part)
  local noted = redis.call('HGET', response.state, 'size:' .. part.field) or '0:0'
  local bytes, fragments = string.match(noted, '^(%d+):(%d+)$')
  bytes, fragments = tonumber(bytes), tonumber(fragments)
  local data, at = redis.call('GETRANGE', part.log, bytes, -1), 1
  while at <= #data do
    local length, count
    length, at = varint(data, at)
    count, at = varint(data, at)
    at, fragments = at + length, fragments + count
  end
  return fragments, fragments > 0 and bytes + #data .. ':' .. fragments
end

-- Returns the state's fields that a response's marker stands for; false if there is a state, or no marker.
local function remembered(response)
  if redis.call('EXISTS', response.state) == 1 then return false end
  local packed = redis.call('GET', response.marker_key)
  if not packed then return false end
  local marker, fields, parts = cmsgpack.unpack(packed), {}, 0
  if marker[1] == 1 then fields['over'] = '1' end
  for _, alert_type in ipairs(marker[2]) do fields['alerted:' .. alert_type] = '1' end
  for i = 3, #marker, 2 do
    local part, contradicted, digest = marker[i], string.match(marker[i + 1], '^(!?)(.*)$')
    fields['part:' .. part] = 'done'
    if digest ~= '' then fields['digest:' .. part] = digest end
    if contradicted == '!' then fields['contradicted:' .. part] = '1' end
    parts = parts + 1
  end
  fields['parts'] = tostring(parts)
  return fields
end

-- Returns a field of a response's state, or its value in the marker; false or nil if there is none.
local function stored(response, field)
  if response.marker == nil then response.marker = remembered(response) end
  if response.marker then return response.marker[field] end
  return redis.call('HGET', response.state, field)
end

-- Returns how many parts a response has. States of v0.1.0 do not say so.
local function parts_of(response)
  local parts = tonumber(stored(response, 'parts') or nil)
  if parts then return parts end
  parts = 0
  for _, field in ipairs(redis.call('HKEYS', response.state)) do
    if string.sub(field, 1, 5) == 'part:' then parts = parts + 1 end
  end
  return parts
end

local function registers_of(response)
  local fields, registers = redis.call('HGETALL', response.state), {}
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 4) == 'ctx:' then
      registers[#registers + 1] = fields[i]
      registers[#registers + 1] = fields[i + 1]
    end
  end
  return registers
end

local overflowing, crowded, noted_too_often, forgotten, refused, contradicted = {}, {}, {}, {}, {}, {}

-- Adds a finished part to `contradicted` if the batch has another text for it, and no alert about that was raised.
local function compare(r, response, p, part)
  local known = stored(response, 'digest:' .. part.field)
  if not known or part.contradicted or stored(response, 'contradicted:' .. part.field) then return end
  for _, digest in ipairs(part.digests) do
    if digest ~= known then
      contradicted[#contradicted + 1] = {r - 1, p - 1, known, registers_of(response)}
      return
    end
  end
end

-- Adds to the bytes of a response; returns whether it would have too many.
local function is_too_large(response, bytes)
  if bytes <= 0 then return false end
  response.more_large = response.more_large + bytes
  return (tonumber(stored(response, 'large') or nil) or 0) + response.more_large > LARGE_LIMIT
end

-- Looks at a part: is it finished, is it there, is it within its limits?
local function look_at(r, response, p, part)
  part.bytes = redis.call('STRLEN', part.log)
  if part.bytes == 0 then
    local status = stored(response, 'part:' .. part.field)
    part.done = status == 'done'
    if part.done then return compare(r, response, p, part) end
    local left_out = part.known or (response.told and redis.call('EXISTS', response.state) == 0)
    response.gone = response.gone or left_out
    if not status then
      response.new_parts = response.new_parts + 1
      if parts_of(response) + response.new_parts > PARTS_LIMIT then crowded[#crowded + 1] = {r - 1, p - 1} end
    end
  end
  local bytes, too_many = part.bytes + #part.chunk, false
  if bytes > FRAGMENTS_LIMIT * FRAGMENT_BYTES then
    local fragments
    fragments, part.size = fragments_in(response, part)
    too_many = fragments + part.fragments > FRAGMENTS_LIMIT
  end
  too_many = is_too_large(response, math.min(#part.chunk, bytes - LARGE_BYTES)) or too_many
  if bytes > part.limit or too_many then overflowing[#overflowing + 1] = {r - 1, p - 1} end
end

-- Returns whether a response would have too many notes. A text that is announced counts as a part, and so do its deltas.
local function is_noted_too_often(response)
  if response.notes_count == 0 then return false end
  stored(response, 'over') -- so that it is known whether a marker stands for the state
  local fields = response.marker and 0 or redis.call('HLEN', response.state)
  if fields + response.notes_count > FIELDS_ONCE + FIELDS_A_PART * PARTS_LIMIT then return true end
  for n = 2, #response.notes, 2 do
    if is_too_large(response, #blob(response.notes[n]) - NOTE_BYTES) then return true end
  end
  response.new_parts = response.new_parts + response.announced
  return response.announced > 0 and parts_of(response) + response.new_parts > PARTS_LIMIT
end

local raises_alerts, late_events = false, 0
for r, response in ipairs(responses) do
  response.new_parts, response.more_large = 0, 0
  for p, part in ipairs(response.parts) do
    look_at(r, response, p, part)
    raises_alerts = raises_alerts or part.opened or part.contradicted
    if part.done then late_events = late_events + (fresh and fresh_among(WHOSE_RESPONSES[r][1][p]) or part.fragments) end
  end
  if #response.parts == 0 then
    stored(response, 'over')
    response.gone = response.told and redis.call('EXISTS', response.state) == 0
  end
  if is_noted_too_often(response) then noted_too_often[#noted_too_often + 1] = r - 1 end
  if response.gone then forgotten[#forgotten + 1] = r - 1 end
end
local sizes = {}
for l = 1, LOG_COUNT do
  sizes[l] = redis.call('STRLEN', KEYS[FIRST_LOG + l])
  if sizes[l] == 0 or sizes[l] + #ARGV[FIRST_CHUNK + l] > LOG_LIMIT then refused[#refused + 1] = {l - 1, sizes[l]} end
end
if #overflowing + #crowded + #noted_too_often + #forgotten + #refused + #contradicted > 0 then
  return reply({
    history = history, overflowing = overflowing, crowded = crowded, noted_too_often = noted_too_often,
    forgotten = forgotten, refused = refused, contradicted = contradicted,
  })
end
must_be_a('zset', OPEN)
must_be_a('zset', WAITING)
must_be_a('hash', OWNERS)
check_rights()
if raises_alerts or late_events + #LETTERS + #COUNTED > 0 then check_rights_to_write_once(raises_alerts) end

-- -------------------------------------------------------------- apply what may be written any number of times

-- `bytes` is the log's length before.
local function append(log, bytes, chunk)
  if bytes == 0 or bytes + #chunk > EXACT_BYTES then
    redis.call('APPEND', log, chunk)
  else
    redis.call('SET', log, redis.call('GET', log) .. chunk, 'KEEPTTL')
  end
end

local function add(response, part)
  append(part.log, redis.call('STRLEN', part.log), part.chunk)
  if part.bytes == 0 then redis.call('HSET', response.state, 'part:' .. part.field, 'open') end
  if part.size then redis.call('HSET', response.state, 'size:' .. part.field, part.size) end
  if not part.known then
    redis.call('PEXPIRE', part.log, TTL_MS)
    redis.call('PEXPIRE', response.state, TTL_MS)
  end
end

-- Keeps the smaller one of each register; returns whether there is one that is new.
local function note(state, registers)
  local any_new = false
  for n = 1, #registers, 2 do
    local name, value = 'ctx:' .. registers[n], registers[n + 1]
    local earlier = redis.call('HGET', state, name)
    if not earlier or value < earlier then redis.call('HSET', state, name, value) end
    any_new = any_new or not earlier
  end
  return any_new
end

local active, candidates = {}, {}

local function apply(response)
  local state, endings, notes = response.state, response.endings, response.notes
  local alive = #endings > 0 or #notes > 0
  if response.marker then -- rebuild the state from the marker; it expires again after the response is settled
    for field, value in pairs(response.marker) do redis.call('HSET', state, field, value) end
    redis.call('PEXPIRE', state, TTL_MS)
    alive = true
  end
  for _, part in ipairs(response.parts) do
    if not part.done then
      alive = true
      add(response, part)
    end
  end
  if response.new_parts > 0 then redis.call('HINCRBY', state, 'parts', response.new_parts) end
  if response.more_large > 0 then redis.call('HINCRBY', state, 'large', response.more_large) end
  alive = note(state, response.registers) or alive
  for e = 1, #endings, 2 do redis.call('HSET', state, 'end:' .. endings[e], blob(endings[e + 1])) end
  if alive then
    for n = 1, #notes, 2 do redis.call('HSET', state, 'note:' .. notes[n], blob(notes[n + 1])) end
  end
  if #endings > 0 or #notes > 0 or #response.registers > 0 then redis.call('PEXPIRE', state, TTL_MS) end
  if alive then
    active[#active + 1] = math.min(response.latest_ms, NOW_MS + GRAIN_MS)
    active[#active + 1] = response.member
    if response.closing_ms then
      redis.call('HINCRBY', state, 'version', 1)
      redis.call('ZADD', WAITING, 'LT', response.closing_ms, response.member)
    end
    candidates[#candidates + 1] = response.member
  end
end

local function not_later_than_now(pairs_of_ms_and_member)
  for i = 1, #pairs_of_ms_and_member, 2 do
    pairs_of_ms_and_member[i] = math.min(pairs_of_ms_and_member[i], NOW_MS + GRAIN_MS)
  end
  return pairs_of_ms_and_member
end

for r, response in ipairs(responses) do
  response.applied = is_fresh(r)
  if response.applied then apply(response) end
end
for l = 1, LOG_COUNT do
  if not fresh or fresh_among(WHOSE_LOGS[l]) > 0 then append(KEYS[FIRST_LOG + l], sizes[l], ARGV[FIRST_CHUNK + l]) end
end
in_slices(active, function(...) redis.call('ZADD', OPEN, 'GT', ...) end)
in_slices(not_later_than_now(ACTIVE), function(...) redis.call('ZADD', OPEN, 'GT', ...) end)
in_slices(not_later_than_now(TOUCHED), function(...) redis.call('ZADD', OPEN, 'XX', 'GT', ...) end)

-- --------------------------------------------------------------------------- apply what must be written once

local opened = {}

local function raise(r, response, p, part)
  if part.opened and not part.done and not redis.call('HGET', response.state, 'alerted:' .. part.field) then
    redis.call('XADD', ALERTS, '*', unpack(part.opened))
    redis.call('HSET', response.state, 'alerted:' .. part.field, '1')
    opened[#opened + 1] = {r - 1, p - 1}
  end
  if part.contradicted and part.done and not redis.call('HGET', response.state, 'contradicted:' .. part.field) then
    redis.call('XADD', ALERTS, '*', unpack(part.contradicted))
    redis.call('HSET', response.state, 'contradicted:' .. part.field, '1')
    add_to(COUNTS, 'contradicted', 1)
  end
end

local function count(name, n)
  if n == 0 then return end
  local kind, rest = string.match(name, '^(%a[%a_]*):(.*)$')
  if rest == '(other)' then
    add_to(COUNTS, name, n)
  elseif kind == 'type' then
    add_to_bounded(COUNTS, TYPE_WEIGHTS, TYPES_AT_MOST, kind, name, n)
  elseif kind == 'left_out' then
    add_to_bounded(COUNTS, FIELD_WEIGHTS, FIELDS_AT_MOST, kind, name, n)
  else
    add_to(COUNTS, name, n)
  end
end

-- Writes a dead letter; of those about one thing that is wrong with a response, only the first.
local told_of_crowds = {}

local function write_letter(entry, letter, original, state)
  if fresh and not fresh[entry] then return end
  if state > 0 then
    if redis.call('HSETNX', KEYS[state], 'crowded', '1') == 0 then return end
    redis.call('PEXPIRE', KEYS[state], TTL_MS)
    told_of_crowds[#told_of_crowds + 1] = entry
  end
  letter[#letter + 1] = 'entry'
  letter[#letter + 1] = blob(original)
  redis.call('XADD', DEAD_LETTERS, '*', unpack(letter))
end

for r, response in ipairs(responses) do
  if response.applied then
    for p, part in ipairs(response.parts) do raise(r, response, p, part) end
  end
end
if not ACKNOWLEDGES then return reply({history = history, opened = opened, late_events = late_events}) end
if late_events > 0 then add_to(COUNTS, 'late', late_events) end
for c = 1, #COUNTED, 2 do
  count(COUNTED[c], fresh and fresh_among(WHOSE_COUNTS[(c + 1) / 2]) or COUNTED[c + 1])
end
for _, letter in ipairs(LETTERS) do write_letter(unpack(letter)) end

-- -------------------------------------------------------------------------------------------------- acknowledge

local acknowledged = 0
in_slices(entry_ids, function(...) acknowledged = acknowledged + redis.call('XACK', INPUT, GROUP, ...) end)
if redis.call('EXISTS', OWNERS) == 1 then in_slices(entry_ids, function(...) redis.call('HDEL', OWNERS, ...) end) end

-- ------------------------------------------------------------------------------------------------------ report

-- What can be finished now: what the low-water mark has passed and, while another worker is stuck with
-- older entries, also what this batch touched, for it may be certain without them.
local oldest_pending, stalled, owned = oldest_pending_of(INPUT, GROUP, STALLED_MS, OWNERS)
local last_delivered = oldest_pending == '' and last_delivered_of(INPUT, GROUP) or '0-0'
local passed_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', passed_ms, 'LIMIT', 0, READY_AT_MOST)
local more = #ready >= READY_AT_MOST
ready = without_owned(ready, owned, WAITING, true)
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

local loaded_bytes = 0

-- Returns the state and the open logs of a response in this batch; nil if a log is open that KEYS does not have, or
-- enough was read.
local function load(r)
  if loaded_bytes > LOADED_BYTES then return nil end
  local response, logs = responses[r], {}
  for _, part in ipairs(response.parts) do logs['part:' .. part.field] = part.log end
  local state, chunks = redis.call('HGETALL', response.state), {}
  for f = 1, #state, 2 do
    if state[f + 1] == 'open' and string.sub(state[f], 1, 5) == 'part:' then
      if not logs[state[f]] then return nil end
      local log = redis.call('GET', logs[state[f]])
      chunks[#chunks + 1] = string.sub(state[f], 6)
      chunks[#chunks + 1] = log
      loaded_bytes = loaded_bytes + #(log or '')
    end
    loaded_bytes = loaded_bytes + #state[f + 1]
  end
  return {r - 1, state, chunks}
end

local numbers, loaded, others = {}, {}, {}
if #ready > 0 then
  for r, response in ipairs(responses) do numbers[response.member] = r end
end
for _, member in ipairs(ready) do
  local found = numbers[member] and load(numbers[member])
  if found then loaded[#loaded + 1] = found else others[#others + 1] = member end
end
return reply({
  history = history, acknowledged = acknowledged, opened = opened, late_events = late_events,
  low_water = {oldest_pending, last_delivered, stalled, owned}, ready = others, more = more, told_of_crowds = told_of_crowds,
  surplus = #active > 0 and math.max(0, math.min(redis.call('ZCARD', OPEN) - OPEN_AT_MOST, #active / 2)) or 0,
}, loaded)
