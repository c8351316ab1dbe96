#!lua
-- Store a batch's effects and acknowledge its entries, atomically. Report which responses can be settled now.
--
-- A script has no rollback, so this one has phases: check everything that could fail, without a write; apply what is
-- idempotent; apply what must be written once; acknowledge; report. If it fails in any phase, the entries are still
-- pending and the worker commits them again. (The phases are not functions, because each run creates its functions anew,
-- and one that uses many locals takes a microsecond to create.)
--
-- To most responses a batch only adds fragments, in logs that the worker knows to be stored. For such a growing log,
-- the call has one key and one chunk, and nothing else. All other responses are listed in RESPONSES, with all that is
-- to be written.
--
-- KEYS  1 input stream   2 dead letters   3 alerts   4 counts   5 open   6 waiting   7 weights of types
--       8 weights of fields left out   9 owners of pending entries
--       10… states, markers and logs, which the plan refers to by index; last, the growing logs
-- ARGV  1 consumer group   2 consumer
--       3 the batch's entry ids in ascending order, separated by spaces
--       4 the plan: a MessagePack array, its items by position (see the names below; commit_plan.py has the same)
--       5 the entries of each effect, MessagePack, read only if some entries were acknowledged before. Entries are
--         indexes into the batch, from 0: {responses {{parts {{entry of each fragment, repeats included, …}, …},
--         other effects {entry, …}}, …}, counts {{entry of each event, …}, …},
--         growing logs {{entry of each fragment, …}, …}}
--       6… blobs, which the plan refers to by index, from 1: chunks, endings, notes, original entries of dead letters, and
--         entries of alerts (the fields of each as consecutive MessagePack values); last, a chunk for each growing log
-- Returns {a map in MessagePack, loaded, …}. Responses, parts, logs and entries in it are indexes into the plan or the
-- batch, from 0. Each reply has:
--         replication_id     the server's replication id
--         now_ms             the server's time
--         If the map has any of these fields, the script has written nothing:
--         surviving_entries  set if the replication id is not REPLICATION_ID: entries of the batch that the server has
--         overflowing        {{response, part}, …}: parts that would exceed their own limits of bytes or fragments, or
--                            their response's limit of bytes
--         crowded            {{response, part}, …}: new parts beyond the limit of parts per response
--         too_many_notes     responses that would exceed the limits of notes, endings of items or announced texts
--         missing_data       responses for which the worker omitted data as already stored, but the data is missing
--         refused_logs       {{log, bytes}, …}: growing logs that are missing (0 bytes) or near a limit, so that
--                            their responses must be in RESPONSES
--         contradicted       {{response, part, digest, registers}, …}: finished parts. The text stored for each has this
--                            digest, and the batch has another text but no alert about it. `registers` are those of
--                            the response: {field, value, …}
--         The other fields (a piece that does not acknowledge has only late_events, opened and disputed):
--         acknowledged       number of entries acknowledged
--         pending_entries    entries that were still pending, so that this run has counted them; absent if all were
--         late_events        number of deltas for finished parts
--         opened             {{response, part}, …}: parts for which the script raised the opening alert
--         disputed           {{response, part}, …}: parts for which it raised the alert about another text
--         reported_crowds    entries for which the dead letter about a response with too many parts was written
--         low_water          {oldest_pending, last_delivered, stalled, owned}: id of the oldest pending entry without a
--                            known owner, or ''; in that case the id of the last delivered entry, else 0-0; true if a
--                            worker is stuck with the first one; and the older pending entries with a known owner:
--                            {{id, response, stuck}, …}. This and the next two are absent if no response waits to be
--                            settled
--         ready              responses to settle, except those in `loaded`, and those of the batch with nothing left to
--                            close, which the script has settled
--         more               true if more responses may be ready
--         surplus            number of open responses beyond the limit; at most as many as this batch changed, not
--                            counting those with only growing logs
-- `loaded` has the ready responses of the batch with all their open logs in KEYS: {response, the state's fields and
-- values, {field, log, …}}
--
-- A state's fields:
--   part:<part>    open or done
--   parts          number of parts
--   large          bytes of the response, without the first UNCOUNTED_BYTES of each part and NOTE_BYTES of each note
--   size:<part>    <bytes>:<fragments>: bytes of a huge part's log that were counted, and the fragments in them
--   alerted:<part>       set if the opening alert was raised
--   alerted:<alert type> set if the alert of this type about the response's end was raised: see settle.lua
--   contradicted:<part>  set if the alert about another text was raised
--   digest:<part>  digest of a finished text
--   ctx:<name>     a register; the smallest value wins
--   end:<arrival>  an ending
--   note:<arrival> rare attributes of a closing or an ending
--   crowded        set if the dead letter about too many parts was written
--   over           set once the response was counted or, if cancelled, left out: see settle.lua
--   version        number of commits that added closings or endings
-- A marker outlives the state of a response that is over: see settle.lua.

local INPUT, DEAD_LETTERS, ALERTS, COUNTS, OPEN, WAITING, TYPE_WEIGHTS, FIELD_WEIGHTS, OWNERS = unpack(KEYS, 1, 9)
local GROUP, CONSUMER, FIRST_BLOB = ARGV[1], ARGV[2], 6
local TTL_MS, FRAGMENTS_LIMIT, FRAGMENT_BYTES, PARTS_LIMIT, READY_AT_MOST, STALLED_MS, LETTERS, COUNTED, TOUCHED,
  RESPONSES, LOG_COUNT, SMALL_LOGS, LOG_LIMIT, LOG_PREFIX, ACTIVE, REPLICATION_ID, VERIFIES, ACKNOWLEDGES,
  OPEN_AT_MOST, UNCOUNTED_BYTES, LARGE_LIMIT, READ_MS, MAY_BE_OWNED = unpack(cmsgpack.unpack(ARGV[4]))
-- TTL_MS: TTL of states and logs in ms
-- FRAGMENTS_LIMIT: maximum fragments of a part   FRAGMENT_BYTES: minimum bytes of a fragment in a log
-- PARTS_LIMIT: maximum parts of a response   OPEN_AT_MOST: maximum open responses
-- READY_AT_MOST: maximum number of ready responses that are reported
-- STALLED_MS: ms after which a worker that still holds an entry counts as stuck
-- RESPONSES: {values, …}: `response_of` names the values of a response
-- LETTERS: {entry, the letter's fields, blob of its field `entry`, index of a state in KEYS or 0}, … A letter with a
-- state is written once per response.
-- COUNTED: {name, number, …}   TOUCHED: {ms of the latest entry, response, …} for events that are only counted
-- LOG_COUNT: number of growing logs   SMALL_LOGS: number of those, first in order, that probably have few bytes
-- LOG_LIMIT: maximum bytes of a growing log
-- LOG_PREFIX: number of bytes before the response in a log's key
-- ACTIVE: {activity_ms, response, …} for growing logs; `response_of` has `activity_ms`
-- REPLICATION_ID: the replication id under which the omitted data was stored; '' if the worker does not know one yet
-- VERIFIES: false if the server's replication id is known to be REPLICATION_ID, since the worker has looked within the
-- last second, over the connection of this call
-- LARGE_LIMIT: maximum bytes of a response, not counting the first UNCOUNTED_BYTES of each part
-- READ_MS: server's time shortly before this worker read the entries; 0 if that is not known
-- MAY_BE_OWNED: false if no owner of these entries is recorded, since this worker has just read them and recorded none
-- ACKNOWLEDGES: false for a piece of a batch that is not the last; only the last has counts and letters
local FIRST_LOG, FIRST_CHUNK = #KEYS - LOG_COUNT, #ARGV - LOG_COUNT
local TYPES_AT_MOST, FIELDS_AT_MOST = 1000, 200
-- A state may have this many fields for each part that PARTS_LIMIT allows. The state is read with each batch; the limit
-- keeps it small even if a producer ends one item a million times.
local FIELDS_A_PART = 8
-- Additional fields of a state, for its context, its alerts and its counters.
local FIELDS_ONCE = 64
-- Bytes of a note that do not count for the bytes of its response.
local NOTE_BYTES = 4096
-- Maximum bytes of a log that is rewritten with SET when it grows; APPEND would allocate twice its size.
local EXACT_BYTES = 2048
-- Approximate maximum bytes of responses that a commit loads; it reports the others as `ready`.
local LOADED_BYTES = 2 * 1024 * 1024
-- Maximum ms in the future for a response's score in OPEN, since producers can choose entry ids in the future. It is
-- IDLE_GRAIN_MS of commit_plan.py, which the worker adds to the last activity.
local GRAIN_MS = 1000
-- Number of pending entries of this consumer's other batches that the check below tolerates between the ids of this
-- batch. If there are more, each entry is looked up.
local OTHERS_AT_MOST = 1000
-- Second byte of an ending in MessagePack, if it ends the response: nil (c0), since it has no output index.
local NO_OUTPUT_INDEX = 192
-- Pattern of entry ids with a number of more than 15 digits, which Lua cannot compare exactly.
local NOT_EXACT = string.rep('%d', 16)
-- Ms after reading in which no other worker takes entries over; `claim_time` is a second at least.
local FRESH_MS = 500

local NOW_MS = server_ms()
-- As text, because the server formats each number that a command gets.
local TTL = string.format('%.0f', TTL_MS)

-- ---------------------------------------------------------------------------------- unpack the plan

local entry_ids = {}
for id in string.gmatch(ARGV[3], '%S+') do entry_ids[#entry_ids + 1] = id end

local function blob(number)
  return ARGV[FIRST_BLOB - 1 + number]
end

local responses = {}

-- The fields of a response that has neither a state nor a marker.
local NOTHING = {}

-- Each run creates its functions anew, so those for responses are only created if the batch has any.
if #RESPONSES > 0 then
  -- Return a part as a table. `known`: the worker knows that the log is stored and does not expire soon. `limit`:
  -- maximum bytes of the log. `digests`: of the texts in the batch's closings. `opening_alert`, `contradiction_alert`:
  -- the blob of the alert's entry or false.
  local function part_of(values)
    local log, chunk, field, fragments, known, limit, opening_alert, digests, contradiction_alert = unpack(values)
    return {
      log = KEYS[log], chunk = blob(chunk), field = field, fragments = fragments, known = known, limit = limit,
      opening_alert = opening_alert, digests = digests, contradiction_alert = contradiction_alert,
    }
  end

  -- Return a response as a table. `activity_ms`: time of its last activity, at most GRAIN_MS too late. `context_known`:
  -- the worker omitted the registers as already stored. `closing_ms`: time of its first closing or ending in the batch,
  -- or false. `notes_count`: number of fields for its notes and its endings of items. `announced`: number of texts that
  -- the notes announce.
  local function response_of(values)
    local state, marker, member, activity_ms, context_known, closing_ms, parts, registers, endings, notes, notes_count,
      announced = unpack(values)
    local part_tables = {}
    for p, part in ipairs(parts) do part_tables[p] = part_of(part) end
    return {
      state = KEYS[state], marker_key = KEYS[marker], member = member, activity_ms = activity_ms,
      context_known = context_known, closing_ms = closing_ms, parts = part_tables, registers = registers,
      endings = endings, notes = notes, notes_count = notes_count, announced = announced, new_parts = 0, more_large = 0,
    }
  end

  for r, values in ipairs(RESPONSES) do responses[r] = response_of(values) end
end

-- ------------------------------------------------------------------------------------------------------- check

local replication_id = VERIFIES and current_replication_id() or REPLICATION_ID

local function reply(fields, loaded)
  fields.replication_id, fields.now_ms = replication_id, string.format('%.0f', NOW_MS)
  return {cmsgpack.pack(fields), unpack(loaded or {})}
end

if REPLICATION_ID ~= '' and REPLICATION_ID ~= replication_id then
  local surviving_entries = {}
  for n, id in ipairs(entry_ids) do
    if #redis.call('XRANGE', INPUT, id, id) > 0 then surviving_entries[#surviving_entries + 1] = n - 1 end
  end
  return reply({surviving_entries = surviving_entries})
end

-- Return the indexes, from 0, of the entries that are still pending, as a set; nil if all of them are, which is usual.
-- The others were acknowledged by a worker that claimed them, or by a first run with a lost reply. A fresh batch can
-- only have been acknowledged by a first run, which leaves none pending, so looking at one entry is enough.
local function pending_among(ids)
  if #ids > 0 and math.abs(NOW_MS - READ_MS) < FRESH_MS then
    if #redis.call('XPENDING', INPUT, GROUP, ids[1], ids[1], 1, CONSUMER) > 0 then return nil end
  end
  local count, found = #ids + OTHERS_AT_MOST, 0
  for _, entry in ipairs(redis.call('XPENDING', INPUT, GROUP, ids[1] or '-', ids[#ids] or '+', count, CONSUMER)) do
    if entry[1] == ids[found + 1] then found = found + 1 end
  end
  if found == #ids then return nil end
  local still = {}
  for n, id in ipairs(ids) do
    if #redis.call('XPENDING', INPUT, GROUP, id, id, 1) > 0 then still[n - 1] = true end
  end
  return still
end

local pending = pending_among(entry_ids)
local entries_of_responses, entries_of_counts, entries_of_logs
if pending then entries_of_responses, entries_of_counts, entries_of_logs = unpack(cmsgpack.unpack(ARGV[5])) end

local function count_pending(list)
  local n = 0
  for _, entry in ipairs(list) do
    if pending[entry] then n = n + 1 end
  end
  return n
end

-- Return true if at least one entry with effects for a response is still pending. If none is, the effects were stored
-- before, and the response must not be changed.
local function has_pending_entry(r)
  if not pending then return true end
  local of_parts, others = unpack(entries_of_responses[r])
  for _, entries in ipairs(of_parts) do
    if count_pending(entries) > 0 then return true end
  end
  return count_pending(others) > 0
end

local overflowing, crowded, too_many_notes, missing_data, refused_logs, contradicted = {}, {}, {}, {}, {}, {}
local has_alerts, late_events, sizes, contents = false, 0, {}, {}

if #responses > 0 then
  -- Return the number that is encoded at a position of a chunk (seven bits per byte, lowest bits first), and the
  -- position after it.
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

  -- Return two values: the number of fragments in a part's log; and the new value of its field size:<part>, or false if
  -- the log has no fragments. It counts only the chunks after the bytes that the stored size:<part> covers.
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

  -- Set `rebuilt_fields` of a response, which is nil before. It is false if the state exists. Otherwise it has the
  -- fields with which the state begins again: those that the marker preserves, or NOTHING without a marker. So it is
  -- true in a condition if the state is missing.
  local function load_marker(response)
    response.rebuilt_fields = false
    if redis.call('HLEN', response.state) > 0 then return end -- fails too if the key has another type
    response.rebuilt_fields = NOTHING
    local packed = redis.call('GET', response.marker_key)
    if not packed then return end
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
    response.rebuilt_fields = fields
  end

  -- Return fields of a response's state or marker, as so many values; false or nil for one that is not set.
  local function stored(response, ...)
    if response.rebuilt_fields == nil then load_marker(response) end
    if not response.rebuilt_fields then return unpack(redis.call('HMGET', response.state, ...)) end
    local values = {}
    for n = 1, select('#', ...) do values[n] = response.rebuilt_fields[select(n, ...)] or false end
    return unpack(values)
  end

  -- Return the number of a response's parts. States of v0.1.0 have no field `parts`.
  local function parts_of(response)
    local parts = tonumber(stored(response, 'parts'))
    if parts or response.rebuilt_fields then return parts or 0 end
    parts = 0
    for _, field in ipairs(redis.call('HKEYS', response.state)) do
      if string.sub(field, 1, 5) == 'part:' then parts = parts + 1 end
    end
    return parts
  end

  -- Return the registers in a response's state: {field, value, …}.
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

  -- Add a finished part to `contradicted` if the batch has another text than the stored one, but no alert about it, and
  -- none was raised before.
  local function note_contradiction(r, response, p, part, stored_digest, was_raised)
    if not stored_digest or part.contradiction_alert or was_raised then return end
    for _, digest in ipairs(part.digests) do
      if digest ~= stored_digest then
        contradicted[#contradicted + 1] = {r - 1, p - 1, stored_digest, registers_of(response)}
        return
      end
    end
  end

  -- Add to the large bytes of a response. Return true if they exceed the limit.
  local function add_large_bytes(response, bytes)
    if bytes <= 0 then return false end
    response.more_large = response.more_large + bytes
    return (tonumber(stored(response, 'large')) or 0) + response.more_large > LARGE_LIMIT
  end

  -- Check one part: record whether it is finished, missing, new, or beyond a limit.
  local function check_part(r, response, p, part)
    part.bytes = redis.call('STRLEN', part.log)
    if part.bytes == 0 then
      local field = part.field
      local status, digest, was_raised =
        stored(response, 'part:' .. field, 'digest:' .. field, 'contradicted:' .. field)
      part.done = status == 'done'
      if part.done then return note_contradiction(r, response, p, part, digest, was_raised) end
      if part.known or (response.context_known and response.rebuilt_fields) then response.missing_data = true end
      if not status then
        response.new_parts = response.new_parts + 1
        if parts_of(response) + response.new_parts > PARTS_LIMIT then crowded[#crowded + 1] = {r - 1, p - 1} end
      end
    end
    local bytes, exceeds = part.bytes + #part.chunk, false
    if bytes > FRAGMENTS_LIMIT * FRAGMENT_BYTES then
      local fragments
      fragments, part.size = fragments_in(response, part)
      exceeds = fragments + part.fragments > FRAGMENTS_LIMIT
    end
    exceeds = add_large_bytes(response, math.min(#part.chunk, bytes - UNCOUNTED_BYTES)) or exceeds
    if bytes > part.limit or exceeds then overflowing[#overflowing + 1] = {r - 1, p - 1} end
  end

  -- Add the notes of a response to its large bytes, and its announced texts to its parts. Return true if the response
  -- exceeds a limit. An announced text counts as a part, in addition to the part that its deltas form.
  local function add_notes(response)
    if response.notes_count == 0 then return false end
    if response.rebuilt_fields == nil then load_marker(response) end
    local fields = response.rebuilt_fields and 0 or redis.call('HLEN', response.state)
    if fields + response.notes_count > FIELDS_ONCE + FIELDS_A_PART * PARTS_LIMIT then return true end
    for n = 2, #response.notes, 2 do
      if add_large_bytes(response, #blob(response.notes[n]) - NOTE_BYTES) then return true end
    end
    response.new_parts = response.new_parts + response.announced
    return response.announced > 0 and parts_of(response) + response.new_parts > PARTS_LIMIT
  end

  for r, response in ipairs(responses) do
    for p, part in ipairs(response.parts) do
      check_part(r, response, p, part)
      has_alerts = has_alerts or part.opening_alert or part.contradiction_alert
      if part.done then late_events = late_events + (pending and count_pending(entries_of_responses[r][1][p]) or part.fragments) end
    end
    if #response.parts == 0 then
      load_marker(response)
      if response.context_known and response.rebuilt_fields then response.missing_data = true end
    end
    if add_notes(response) then too_many_notes[#too_many_notes + 1] = r - 1 end
    if response.missing_data then missing_data[#missing_data + 1] = r - 1 end
    -- `load_marker` has looked at the other states.
    if response.rebuilt_fields == nil then must_be_a('hash', response.state) end
  end
end

-- A key of another type counts as missing here. The worker then sends the response in full, and in that call,
-- STRLEN in `check_part` fails.
for first = 1, SMALL_LOGS, ARGUMENTS_AT_MOST do
  local last = math.min(first + ARGUMENTS_AT_MOST - 1, SMALL_LOGS)
  for n, log in ipairs(redis.call('MGET', unpack(KEYS, FIRST_LOG + first, FIRST_LOG + last))) do
    contents[first + n - 1] = log or ''
  end
end
for l = 1, LOG_COUNT do
  sizes[l] = contents[l] and #contents[l] or redis.call('STRLEN', KEYS[FIRST_LOG + l])
  if sizes[l] == 0 or sizes[l] + #ARGV[FIRST_CHUNK + l] > LOG_LIMIT then
    refused_logs[#refused_logs + 1] = {l - 1, sizes[l]}
  end
end
if #overflowing + #crowded + #too_many_notes + #missing_data + #refused_logs + #contradicted > 0 then
  return reply({
    overflowing = overflowing, crowded = crowded, too_many_notes = too_many_notes, missing_data = missing_data,
    refused_logs = refused_logs, contradicted = contradicted,
  })
end
local has_activity = #RESPONSES + #ACTIVE + #TOUCHED > 0
-- These also fail if the key has another type.
local has_owners = MAY_BE_OWNED and redis.call('HLEN', OWNERS) > 0
local waiting_count, open_count = redis.call('ZCARD', WAITING), #RESPONSES > 0 and redis.call('ZCARD', OPEN) or 0

-- The rights for all commands that come between the first write and the acknowledgement. (A failure after that loses
-- nothing, because all effects are stored.) OPEN stands for all keys: see must_be_allowed.
must_be_allowed('XACK', INPUT, GROUP, '0-1')
if has_owners then must_be_allowed('HDEL', OWNERS, '') end
if has_activity then must_be_allowed('ZADD', OPEN, '0', '') end
if LOG_COUNT + #RESPONSES > 0 then
  must_be_allowed('GET', OPEN)
  must_be_allowed('SET', OPEN, '', 'KEEPTTL')
  must_be_allowed('APPEND', OPEN, '')
end
if #RESPONSES > 0 then
  must_be_allowed('HGET', OPEN, '')
  must_be_allowed('HMGET', OPEN, '')
  must_be_allowed('HLEN', OPEN)
  must_be_allowed('HSET', OPEN, '', '')
  must_be_allowed('HINCRBY', OPEN, '', '1')
  must_be_allowed('PEXPIRE', OPEN, TTL_MS)
end
if #LETTERS > 0 then
  must_be_a('stream', DEAD_LETTERS)
  must_be_allowed('XADD', DEAD_LETTERS, '*', '', '')
  for _, letter in ipairs(LETTERS) do
    local state = letter[4]
    if state > 0 then
      must_be_a('hash', KEYS[state])
      must_be_allowed('PEXPIRE', KEYS[state], TTL)
    end
  end
end
if has_alerts then
  must_be_a('stream', ALERTS)
  must_be_allowed('XADD', ALERTS, '*', '', '')
end
if has_alerts or late_events + #LETTERS + #COUNTED > 0 then
  must_be_a('hash', COUNTS)
  local kinds = {}
  for c = 1, #COUNTED, 2 do kinds[string.match(COUNTED[c], '^[%a_]*')] = true end
  if kinds.type then must_be_a('zset', TYPE_WEIGHTS) end
  if kinds.left_out then must_be_a('zset', FIELD_WEIGHTS) end
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

-- -------------------------------------------------------------- apply what is idempotent

-- Three counters of a state are the exception: a run after a failed one adds to them again. `parts` and `large` only
-- serve limits, and a higher `version` only makes the worker settle the response once more.

-- Append a chunk to a log of this many bytes. `content` is the log's content if it is known, else nil.
local function append(log, bytes, chunk, content)
  if bytes == 0 or bytes + #chunk > EXACT_BYTES then
    redis.call('APPEND', log, chunk)
  else
    redis.call('SET', log, (content or redis.call('GET', log)) .. chunk, 'KEEPTTL')
  end
end

local active, waiting, candidates = {}, {}, {}

-- Return {ms, response, …} with no ms further in the future than GRAIN_MS.
local function limited(activities)
  for i = 1, #activities, 2 do activities[i] = math.min(activities[i], NOW_MS + GRAIN_MS) end
  return activities
end

-- Without RESPONSES, this and TOUCHED below are the first writes: a wrong type of the key fails them, so no command has
-- to check that before.
in_slices(limited(ACTIVE), function(...) open_count = open_count + redis.call('ZADD', OPEN, 'GT', ...) end)

if #responses > 0 then
  -- Append a part's chunk to its log. Add the fields to set in the state to `changes`.
  local function store_part(part, changes)
    if part.bytes == 0 and not part.known then
      redis.call('SET', part.log, part.chunk, 'PX', TTL)
    else
      append(part.log, part.bytes, part.chunk)
      if not part.known then redis.call('PEXPIRE', part.log, TTL) end
    end
    if part.bytes == 0 then
      changes[#changes + 1] = 'part:' .. part.field
      changes[#changes + 1] = 'open'
    end
    if part.size then
      changes[#changes + 1] = 'size:' .. part.field
      changes[#changes + 1] = part.size
    end
  end

  -- Add each register to `changes` unless the stored value is as small or smaller. Return true if one was not stored
  -- before.
  local function add_registers(response, changes)
    local registers, earlier_values, names, any_new = response.registers, {}, {}, false
    for n = 1, #registers, 2 do names[#names + 1] = 'ctx:' .. registers[n] end
    if #names > 0 and not response.rebuilt_fields then
      earlier_values = redis.call('HMGET', response.state, unpack(names))
    end
    for n, name in ipairs(names) do
      local earlier, value = earlier_values[n], registers[2 * n]
      if not earlier or value < earlier then
        changes[#changes + 1] = name
        changes[#changes + 1] = value
      end
      any_new = any_new or not earlier
    end
    return any_new
  end

  -- Add fields whose values are blobs to `changes`.
  local function add_blobs(prefix, blobs, changes)
    for b = 1, #blobs, 2 do
      changes[#changes + 1] = prefix .. blobs[b]
      changes[#changes + 1] = blob(blobs[b + 1])
    end
  end

  -- Add to a counter of a response's state: in `changes` if there is no state, else at once.
  local function add_to_counter(response, name, n, changes)
    if response.rebuilt_fields then
      changes[#changes + 1] = name
      changes[#changes + 1] = string.format('%.0f', (tonumber(response.rebuilt_fields[name]) or 0) + n)
    else
      redis.call('HINCRBY', response.state, name, n)
    end
  end

  -- Return the fields that this sets in the state.
  local function apply(response)
    local state, endings, notes, changes = response.state, response.endings, response.notes, {}
    -- True if the batch adds something. Events of finished parts alone add nothing, so a response that is over stays so
    -- while its state exists; if only its marker is left, the state is rebuilt below.
    local adds = #endings > 0 or #notes > 0
    local renews = adds or #response.registers > 0
    -- Rebuild the state from the marker; it expires again once the response is settled.
    for field, value in pairs(response.rebuilt_fields or NOTHING) do
      adds, renews = true, true
      changes[#changes + 1] = field
      changes[#changes + 1] = value
    end
    for _, part in ipairs(response.parts) do
      if not part.done then
        adds, renews = true, renews or not part.known
        store_part(part, changes)
      end
    end
    if response.new_parts > 0 then add_to_counter(response, 'parts', response.new_parts, changes) end
    if response.more_large > 0 then add_to_counter(response, 'large', response.more_large, changes) end
    adds = add_registers(response, changes) or adds
    add_blobs('end:', endings, changes)
    add_blobs('note:', notes, changes)
    if adds and response.closing_ms then add_to_counter(response, 'version', 1, changes) end
    in_slices(changes, function(...) redis.call('HSET', state, ...) end)
    if renews then redis.call('PEXPIRE', state, TTL) end
    if adds then
      active[#active + 1] = response.activity_ms
      active[#active + 1] = response.member
      if response.closing_ms then
        waiting[#waiting + 1] = response.closing_ms
        waiting[#waiting + 1] = response.member
      end
      candidates[#candidates + 1] = response.member
    end
    return changes
  end

  for r, response in ipairs(responses) do
    if has_pending_entry(r) then response.changes = apply(response) end
  end
  in_slices(limited(active), function(...) open_count = open_count + redis.call('ZADD', OPEN, 'GT', ...) end)
  in_slices(waiting, function(...) redis.call('ZADD', WAITING, 'LT', ...) end)
  waiting_count = waiting_count + #waiting / 2
end

-- After the responses, because it renews those that this batch opens too.
in_slices(limited(TOUCHED), function(...) redis.call('ZADD', OPEN, 'XX', 'GT', ...) end)
for l = 1, LOG_COUNT do
  if not pending or count_pending(entries_of_logs[l]) > 0 then
    append(KEYS[FIRST_LOG + l], sizes[l], ARGV[FIRST_CHUNK + l], contents[l])
  end
end

-- --------------------------------------------------------------------------- apply what must be written once

local opened, disputed, reported_crowds = {}, {}, {}

if has_alerts then
  -- Add the alerts of a part to the stream, unless an earlier call has.
  local function raise_alerts(r, response, p, part)
    local is_new = response.rebuilt_fields and not response.rebuilt_fields['alerted:' .. part.field]
    if part.opening_alert and not part.done
      and (is_new or not redis.call('HGET', response.state, 'alerted:' .. part.field)) then
      redis.call('XADD', ALERTS, '*', cmsgpack.unpack(blob(part.opening_alert)))
      redis.call('HSET', response.state, 'alerted:' .. part.field, '1')
      response.changes[#response.changes + 1] = 'alerted:' .. part.field
      response.changes[#response.changes + 1] = '1'
      opened[#opened + 1] = {r - 1, p - 1}
    end
    if part.contradiction_alert and part.done
      and not redis.call('HGET', response.state, 'contradicted:' .. part.field) then
      redis.call('XADD', ALERTS, '*', cmsgpack.unpack(blob(part.contradiction_alert)))
      redis.call('HSET', response.state, 'contradicted:' .. part.field, '1')
      add_to(COUNTS, 'contradicted', 1)
      disputed[#disputed + 1] = {r - 1, p - 1}
    end
  end

  for r, response in ipairs(responses) do
    if response.changes then
      for p, part in ipairs(response.parts) do raise_alerts(r, response, p, part) end
    end
  end
end

if not ACKNOWLEDGES then return reply({opened = opened, disputed = disputed, late_events = late_events}) end
if late_events > 0 then add_to(COUNTS, 'late', late_events) end
if #COUNTED > 0 then
  -- Counts of names that others have replaced, by the name that stands for them.
  local others = {}

  -- Add to a count. The numbers of names that producers choose (`type:…`, `left_out:…`) are bounded.
  local function count(name, n)
    if n == 0 then return end
    local kind, rest = string.match(name, '^(%a[%a_]*):(.*)$')
    local other, removed = kind and kind .. ':(other)', 0
    if rest == '(other)' then
      removed = n
    elseif kind == 'type' then
      removed = add_to_bounded(COUNTS, TYPE_WEIGHTS, TYPES_AT_MOST, name, n)
    elseif kind == 'left_out' then
      removed = add_to_bounded(COUNTS, FIELD_WEIGHTS, FIELDS_AT_MOST, name, n)
    else
      add_to(COUNTS, name, n)
    end
    if removed > 0 then others[other] = (others[other] or 0) + removed end
  end

  for c = 1, #COUNTED, 2 do
    count(COUNTED[c], pending and count_pending(entries_of_counts[(c + 1) / 2]) or COUNTED[c + 1])
  end
  for other, n in pairs(others) do add_to(COUNTS, other, n) end
end
if #LETTERS > 0 then
  -- Write a dead letter. A letter with a state is written only if it is the first for its response.
  local function write_letter(entry, letter, original, state)
    if pending and not pending[entry] then return end
    if state > 0 then
      if redis.call('HSETNX', KEYS[state], 'crowded', '1') == 0 then return end
      redis.call('PEXPIRE', KEYS[state], TTL)
      reported_crowds[#reported_crowds + 1] = entry
    end
    letter[#letter + 1] = 'entry'
    letter[#letter + 1] = blob(original)
    redis.call('XADD', DEAD_LETTERS, '*', unpack(letter))
  end

  for _, letter in ipairs(LETTERS) do write_letter(unpack(letter)) end
end

-- -------------------------------------------------------------------------------------------------- acknowledge

local acknowledged = 0
in_slices(entry_ids, function(...) acknowledged = acknowledged + redis.call('XACK', INPUT, GROUP, ...) end)
if has_owners then in_slices(entry_ids, function(...) redis.call('HDEL', OWNERS, ...) end) end

-- ------------------------------------------------------------------------------------------------------ report

local pending_entries
if pending then
  pending_entries = {}
  for entry in pairs(pending) do pending_entries[#pending_entries + 1] = entry end
end
local report = {
  acknowledged = acknowledged, pending_entries = pending_entries, late_events = late_events, opened = opened,
  disputed = disputed, reported_crowds = reported_crowds,
  surplus = math.max(0, math.min(open_count - OPEN_AT_MOST, #active / 2)),
}
if waiting_count == 0 then return reply(report) end

-- A response can be settled once the low-water mark has passed the entry that closed it. The script compares
-- milliseconds; the worker compares the exact ids. While another worker is stuck with older entries, the script also
-- reports the waiting responses of this batch, as their texts may be certain without those entries.
local oldest_pending, stalled, owned = oldest_pending_of(INPUT, GROUP, STALLED_MS, OWNERS)
local last_delivered = oldest_pending == '' and last_delivered_of(INPUT, GROUP) or '0-0'
local mark_ms = string.match(oldest_pending ~= '' and oldest_pending or last_delivered, '^%d+')
local ready = redis.call('ZRANGEBYSCORE', WAITING, '-inf', mark_ms, 'LIMIT', 0, READY_AT_MOST)
local more = #ready >= READY_AT_MOST
ready = without_owned(ready, owned, WAITING, false)
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

-- Return true if the low-water mark has passed an arrival; false also while an older pending entry has a known owner,
-- or if the id is too large to compare exactly.
local function is_passed(arrival)
  local id = string.match(arrival, '^%d+%-%d+')
  if #owned > 0 or string.find(id, NOT_EXACT) then return false end
  if oldest_pending ~= '' then return before(id, oldest_pending) end
  return not before(last_delivered, id)
end

-- Return the fields to delete from a state whose only endings are ends of items, with nothing left to close. Return nil
-- if the worker has to settle the response.
local function applied_endings(state)
  local applied = {}
  for f = 1, #state, 2 do
    local kind, rest = string.match(state[f], '^(%l+):(.*)$')
    if kind == 'part' and state[f + 1] ~= 'done' then return nil end
    if kind == 'end' then
      if string.byte(state[f + 1], 2) == NO_OUTPUT_INDEX or not is_passed(rest) then return nil end
      applied[#applied + 1], applied[#applied + 2] = state[f], 'note:' .. rest
    end
  end
  return applied
end

local loaded_bytes, not_waiting = 0, {}

-- Return the index, the state and the open logs of a response in this batch; nil if KEYS lacks an open log, or if
-- enough bytes are loaded. Return false if this settles the response.
local function load(r)
  if loaded_bytes > LOADED_BYTES then return nil end
  local response, parts = responses[r], {}
  for _, part in ipairs(response.parts) do parts['part:' .. part.field] = part end
  -- Without a state before, this run has written all that is there now. (A dead letter also sets a field.)
  local is_new = response.rebuilt_fields == NOTHING and response.changes and #LETTERS == 0
  local state, chunks = is_new and response.changes or redis.call('HGETALL', response.state), {}
  local applied = applied_endings(state)
  if applied then
    in_slices(applied, function(...) redis.call('HDEL', response.state, ...) end)
    not_waiting[#not_waiting + 1] = response.member
    return false
  end
  for f = 1, #state, 2 do
    if state[f + 1] == 'open' and string.sub(state[f], 1, 5) == 'part:' then
      local part = parts[state[f]]
      if not part then return nil end
      local log = is_new and part.bytes == 0 and part.chunk or redis.call('GET', part.log)
      chunks[#chunks + 1] = string.sub(state[f], 6)
      chunks[#chunks + 1] = log
      loaded_bytes = loaded_bytes + #(log or '')
    end
    loaded_bytes = loaded_bytes + #state[f + 1]
  end
  return {r - 1, state, chunks}
end

local index_of, loaded, not_loaded = {}, {}, {}
if #ready > 0 then
  for r, response in ipairs(responses) do index_of[response.member] = r end
end
for _, member in ipairs(ready) do
  local found = index_of[member] and load(index_of[member])
  if found then loaded[#loaded + 1] = found elseif found == nil then not_loaded[#not_loaded + 1] = member end
end
in_slices(not_waiting, function(...) redis.call('ZREM', WAITING, ...) end)
report.low_water, report.ready, report.more = {oldest_pending, last_delivered, stalled, owned}, not_loaded, more
return reply(report, loaded)
