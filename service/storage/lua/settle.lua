#!lua
-- Write the finished texts of responses and their alerts, once each, and delete their logs.
-- The script checks everything that could fail before its first write: see commit.lua.
--
-- KEYS  1 assembled   2 alerts   3 counts   4 open   5 waiting   6… states, markers, logs, items and buckets, which
--       the plan refers to by index
-- ARGV  1 the plan, MessagePack:
--         settlements    {state, marker, member, version, applied_endings {field, …}, unsettled_ms, ended, idle_since_ms,
--                         partial, earlier {field, …},
--                         closed {field, log, log_bytes, late, item, item_field, id, message, digest, opened,
--                         finished, contradicted} (a dropped copy has the first four),
--                         contradictions {field, alert},
--                         outcome {alerts {type, entry}, counted_for {{scope, name}, …}, buckets {number, …},
--                         refused, blocked, cancelled, refusing {kind, …}}}; each response is in one settlement
--                        An entry to write (message, an alert) is the index of a blob, from 1.
--                        Absent if not needed or false: unsettled_ms, idle_since_ms, partial, earlier, late, opened,
--                        finished, contradicted, contradictions, outcome, refused, blocked, cancelled
--                        version: the state's version that was read
--                        applied_endings: arrivals of applied endings, to be deleted
--                        unsettled_ms: ms of the entry that the response waits for; absent if it does not wait
--                        ended: true to write a marker, and let the state expire
--                        idle_since_ms: settle only if the response's score in OPEN is still this one
--                        partial: true if a later call has more texts of the response and the effects of its end
--                        earlier: the parts that earlier calls have settled
--                        closed: texts and dropped copies, in order; log_bytes is the log's length when it was read,
--                        late the number of its deltas after the closing event; message is the entry of the text,
--                        the second value of which is its JSON
--                        outcome: the effects of the response's end
--         marker_ttl_ms  TTL of the marker of a response that is over
--         over_ttl_ms    TTL of the state of a response that is over
--         item_ttl_ms    TTL of a finished item
--         buckets        {key, names, start_ms, expires_ms}: counts of the responses that are over in a time range.
--                        key: the hash of the counts; names: the sorted set of the counted names, by weight;
--                        start_ms, expires_ms: the time range
--         replication_id        the replication id under which the responses and the low-water mark were read
--         names_at_most  maximum number of names in a bucket; a replaced name is counted as `other`
--         other          the name under which replaced names are counted
--       2… blobs, the entries to write: the fields of each as consecutive MessagePack values
-- Returns MessagePack: {written, raised, late}; {{}, {}, 0}, with nothing written, if the replication id has changed
--         written  {{settlement, closed}, …}: the indexes from 0 of the texts that this run has written
--         raised   ids of the alerts that it has raised
--         late     number of deltas after the closing event that it has counted
--
-- A marker is MessagePack: {1 if the response was counted, {alert type, …}, part, digest of its text, …}. A `!` before
-- a digest means that the alert about another text was raised. Markers are small keys, because many are kept for a
-- long time. The state stays next to its marker for a while, for workers of v0.1.0, which do not know markers.

local ASSEMBLED, ALERTS, COUNTS, OPEN, WAITING = unpack(KEYS, 1, 5)
local FIRST_BLOB = 2
local plan = cmsgpack.unpack(ARGV[1])
-- As text, because the server formats each number that a command gets.
local MARKER_TTL_MS, OVER_TTL_MS = string.format('%.0f', plan.marker_ttl_ms), string.format('%.0f', plan.over_ttl_ms)
local ITEM_TTL_MS = string.format('%.0f', plan.item_ttl_ms)

-- Return the fields and values of an entry to write, as so many values.
local function entry_of(blob)
  return cmsgpack.unpack(ARGV[FIRST_BLOB - 1 + blob])
end

-- ------------------------------------------------------------------------------------------------------- check

if plan.replication_id ~= current_replication_id() then return cmsgpack.pack({{}, {}, 0}) end

for _, stream in ipairs({ASSEMBLED, ALERTS}) do must_be_allowed('XADD', stream, '*', '', '') end

local function check_rights(state, marker)
  for _, command in ipairs({'HGETALL', 'DEL'}) do must_be_allowed(command, state) end
  for _, command in ipairs({'HGET', 'HEXISTS', 'HDEL'}) do must_be_allowed(command, state, 'over') end
  must_be_allowed('HSET', state, 'over', '1')
  must_be_allowed('HINCRBY', state, 'over', '1')
  for _, command in ipairs({'PEXPIRE', 'PEXPIREAT'}) do must_be_allowed(command, state, '1') end
  must_be_allowed('SET', marker, '', 'PX', '1')
  must_be_allowed('ZADD', WAITING, '0', '')
  must_be_allowed('ZREM', WAITING, '')
end

local function check_rights_to(text)
  must_be_allowed('DEL', text.log)
  if not text.item then return end
  must_be_allowed('HSETNX', text.item, text.item_field, '')
  must_be_allowed('PEXPIRE', text.item, '1')
end

local function check_rights_to_names(names)
  for _, command in ipairs({'ZCARD', 'ZPOPMIN'}) do must_be_allowed(command, names) end
  must_be_allowed('ZSCORE', names, '')
  for _, command in ipairs({'ZADD', 'ZINCRBY'}) do must_be_allowed(command, names, '1', '') end
end

-- Return true if the item already has a text with this id. That text stays, even if no state or marker remembers the
-- part, so that an id never gets two texts. The field may have a text with another id, because two responses can use
-- the same item id. The search cannot match inside a text, because quotation marks are escaped there.
local function is_in_item(text)
  local json = redis.call('HGET', text.item, text.item_field)
  return json and string.find(json, '"id":"' .. text.id .. '"', 1, true) ~= nil
end

-- The types of the shared keys that this run may write, or read after its first write.
local types = {[WAITING] = 'zset'}

local function note_types(settlement)
  if settlement.ended or settlement.idle_since_ms then types[OPEN] = 'zset' end
  if settlement.outcome and #settlement.outcome.alerts > 0 then types[ALERTS] = 'stream' end
  if settlement.contradictions then types[ALERTS], types[COUNTS] = 'stream', 'hash' end
  for _, text in ipairs(settlement.closed) do
    if text.message then types[ASSEMBLED] = 'stream' end
    if text.opened or text.finished or text.contradicted then types[ALERTS] = 'stream' end
    if text.late or text.contradicted then types[COUNTS] = 'hash' end
  end
end

-- Read what the next phase compares. Like `must_be_a`, these reads fail if a key has another type.
for s, settlement in ipairs(plan.settlements) do
  note_types(settlement)
  local state, marker = KEYS[settlement.state], KEYS[settlement.marker]
  local fields = {'version'}
  for t, text in ipairs(settlement.closed) do fields[t + 1] = 'part:' .. text.field end
  local values = redis.call('HMGET', state, unpack(fields))
  settlement.version_now = tonumber(values[1] or 0)
  if settlement.ended then redis.call('STRLEN', marker) end
  if s == 1 then check_rights(state, marker) end
  for t, text in ipairs(settlement.closed) do
    text.number, text.part, text.is_done = {s - 1, t - 1}, fields[t + 1], values[t + 1] == 'done'
    text.log, text.item = KEYS[text.log], text.item and KEYS[text.item]
    text.log_bytes_now = redis.call('STRLEN', text.log)
    text.was_in_item = text.item and is_in_item(text)
    if s == 1 and t == 1 then check_rights_to(text) end
  end
end
for key, kind in pairs(types) do must_be_a(kind, key) end
for b, bucket in ipairs(plan.buckets) do
  must_be_a('hash', KEYS[bucket.key])
  must_be_a('zset', KEYS[bucket.names])
  if b == 1 then check_rights_to_names(KEYS[bucket.names]) end
end

-- ------------------------------------------------------------------------------------------------------- apply

local raised, late = {}, 0

-- Add an alert to its stream. Its fields are __data__, type, id, …, each followed by its value.
local function raise(blob)
  local alert = {entry_of(blob)}
  redis.call('XADD', ALERTS, '*', unpack(alert))
  raised[#raised + 1] = alert[6]
end

-- Raise the alert about another text for a finished part, once per part.
local function contradict(state, field, alert)
  if not alert or redis.call('HEXISTS', state, 'contradicted:' .. field) == 1 then return end
  raise(alert)
  redis.call('HSET', state, 'contradicted:' .. field, '1')
  add_to(COUNTS, 'contradicted', 1)
end

-- The texts that this run has written: their indexes in the plan.
local written = {}

-- The logs of the parts that this run has finished, as a list and as a set.
local logs, is_finished = {}, {}

-- The responses that no longer wait, and those that are over.
local not_waiting, over = {}, {}

-- Write a text, with these fields and values of its entry, to its stream and its item.
local function write_message(text, ...)
  redis.call('XADD', ASSEMBLED, '*', ...)
  local _, json = ...
  if redis.call('HSETNX', text.item, text.item_field, json) == 1 then redis.call('PEXPIRE', text.item, ITEM_TTL_MS) end
end

-- Write a text to its stream and its item, and raise its alerts.
local function write(state, text)
  write_message(text, entry_of(text.message))
  if text.opened and redis.call('HEXISTS', state, 'alerted:' .. text.field) == 0 then
    raise(text.opened)
    redis.call('HSET', state, 'alerted:' .. text.field, '1')
  end
  if text.finished then raise(text.finished) end
  contradict(state, text.field, text.contradicted)
  written[#written + 1] = text.number
end

-- Finish a part, and add the fields that it no longer needs to `unneeded`. Return true if it is finished now or was
-- before, false if its log has changed since it was read.
local function finish(state, text, unneeded)
  if text.is_done or is_finished[text.log] then
    -- The worker that finished it may not have seen the other text, and this settlement may delete the ending that has
    -- the text.
    contradict(state, text.field, text.contradicted)
    return true
  end
  if text.log_bytes_now ~= text.log_bytes then return false end
  if text.message and not text.was_in_item then
    write(state, text)
    redis.call('HSET', state, text.part, 'done', 'digest:' .. text.field, text.digest)
  else
    redis.call('HSET', state, text.part, 'done')
  end
  unneeded[#unneeded + 1] = 'size:' .. text.field
  logs[#logs + 1], is_finished[text.log] = text.log, true
  if text.late then
    add_to(COUNTS, 'late', text.late)
    late = late + text.late
  end
  return true
end

-- The counts of this run, by bucket number: {<scope>:<name> = {scope, name, responses, refused, blocked}}.
local tallies = {}

-- Add a response to the tallies.
local function tally(outcome, refused, blocked)
  for _, subject in ipairs(outcome.counted_for) do
    local scope, name = subject[1], subject[2]
    local key = scope .. ':' .. name
    for _, bucket in ipairs(outcome.buckets) do
      local of_bucket = tallies[bucket] or {}
      local sums = of_bucket[key] or {scope = scope, name = name, responses = 0, refused = 0, blocked = 0}
      sums.responses, sums.refused, sums.blocked = sums.responses + 1, sums.refused + refused, sums.blocked + blocked
      tallies[bucket], of_bucket[key] = of_bucket, sums
    end
  end
end

-- Apply the effects of a response's end: raise its alerts, each type once, and count the response once. It counts as
-- refused if its reason says so or a part of a kind in `refusing` has raised its alert, else as blocked if a filter
-- stopped it. A cancelled response counts only if it was refused. `state` gets the fields that this adds. A state
-- without fields is missing: the effects were applied before.
local function conclude(key, state, outcome)
  if not next(state.fields) then return end
  for _, alert in ipairs(outcome.alerts) do
    local field = 'alerted:' .. alert.type
    if not state.fields[field] then
      raise(alert.entry)
      redis.call('HSET', key, field, '1')
      state.fields[field] = '1'
      state.alerted[#state.alerted + 1] = alert.type
    end
  end
  if #outcome.buckets == 0 or state.fields['over'] then return end
  redis.call('HSET', key, 'over', '1')
  state.fields['over'] = '1'
  local refused, refuses = outcome.refused and 1 or 0, {}
  for _, kind in ipairs(outcome.refusing) do refuses[kind] = true end
  for _, alerted in ipairs(state.alerted) do
    local kind = string.match(alerted, '^%d+:%d+:(.*)$')
    if kind and refuses[kind] then refused = 1 end
  end
  if outcome.cancelled and refused == 0 then return end
  tally(outcome, refused, outcome.blocked and refused == 0 and 1 or 0)
end

-- Return the bucket's field for a count of a model, a tenant or a provider. Workers of v0.1.0 read every scope except
-- `model` as a tenant, so providers have fields that those workers ignore.
local function field_of(what, scope, name)
  if scope == 'provider' then return what .. '.provider:' .. name end
  return what .. ':' .. scope .. ':' .. name
end

-- Delete the counts of a name, and add them to `others`, by the fields of the name that stands for replaced ones.
local function remove_name(key, subject, others)
  local scope, name = string.match(subject, '^(%l+):(.*)$')
  local whats, fields = {'responses', 'refused', 'blocked'}, {}
  for w, what in ipairs(whats) do fields[w] = field_of(what, scope, name) end
  for w, value in ipairs(redis.call('HMGET', key, unpack(fields))) do
    local n, other = tonumber(value or '0') or 0, field_of(whats[w], scope, plan.other)
    if n > 0 then others[other] = (others[other] or 0) + n end
  end
  redis.call('HDEL', key, unpack(fields))
end

-- Add the counts of this run to a bucket. The weight of a name is its number of responses.
local function count_in(key, weights, sums_of)
  local others = {}
  for subject, sums in pairs(sums_of) do
    local scope, name = sums.scope, sums.name
    local replaced = add_weight(weights, plan.names_at_most, subject, sums.responses)
    if replaced then remove_name(key, replaced, others) end
    add_to(key, field_of('responses', scope, name), sums.responses)
    add_to(key, field_of('refused', scope, name), sums.refused)
    if sums.blocked > 0 then add_to(key, field_of('blocked', scope, name), sums.blocked) end
  end
  for field, n in pairs(others) do add_to(key, field, n) end
end

-- Write the counts of this run, except to buckets that have expired or have not begun.
local function count_tallies()
  local now_ms = server_ms()
  for number, of_bucket in pairs(tallies) do
    local bucket = plan.buckets[number]
    if bucket.start_ms <= now_ms and now_ms < bucket.expires_ms then
      count_in(KEYS[bucket.key], KEYS[bucket.names], of_bucket)
      redis.call('PEXPIREAT', KEYS[bucket.key], bucket.expires_ms)
      redis.call('PEXPIREAT', KEYS[bucket.names], bucket.expires_ms)
    end
  end
end

-- Return a state as a table. `parts`: its parts. `alerted`: the parts and types of its alerts. `is_open`: true if a part
-- is open or an ending is not applied yet.
local function load_state(key)
  local flat, fields, parts, alerted, is_open = redis.call('HGETALL', key), {}, {}, {}, false
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    fields[name] = value
    local kind, rest = string.match(name, '^([pae]%l*):(.*)$')
    if kind == 'part' then
      parts[#parts + 1] = rest
      is_open = is_open or value ~= 'done'
    elseif kind == 'alerted' then
      alerted[#alerted + 1] = rest
    elseif kind == 'end' then
      is_open = true
    end
  end
  return {fields = fields, parts = parts, alerted = alerted, is_open = is_open}
end

-- Return the marker of a state; nil if the state has neither a part nor an alert about its end.
local function marker_of(state)
  local types = {}
  for _, alerted in ipairs(state.alerted) do
    if string.sub(alerted, 1, 10) == 'deltaloom.' then types[#types + 1] = alerted end
  end
  if #types + #state.parts == 0 then return nil end
  local marker = {state.fields['over'] and 1 or 0, types}
  for _, part in ipairs(state.parts) do
    marker[#marker + 1] = part
    marker[#marker + 1] = (state.fields['contradicted:' .. part] and '!' or '') .. (state.fields['digest:' .. part] or '')
  end
  return cmsgpack.pack(marker)
end

-- Write the marker of a response that is over, and let its state expire, unless a part is open or an ending is not
-- applied yet.
local function mark_as_over(key, state, marker_key, member)
  if state.is_open then return end
  over[#over + 1] = member
  local marker = marker_of(state)
  if marker then redis.call('SET', marker_key, marker, 'PX', MARKER_TTL_MS) end
  if marker or state.fields['over'] then
    redis.call('PEXPIRE', key, OVER_TTL_MS)
  else
    redis.call('DEL', key)
  end
end

-- Set or delete the ms for which a response waits, unless closings or endings came since it was read.
local function update_waiting(state, settlement)
  if settlement.version_now ~= settlement.version then return end
  if settlement.unsettled_ms then
    redis.call('ZADD', WAITING, settlement.unsettled_ms, settlement.member)
  else
    not_waiting[#not_waiting + 1] = settlement.member
  end
end

-- Finish texts and drop copies in order, up to the first with a changed log, so that no text is finished before one
-- that was closed earlier. Return true if all are finished. Add the fields that they no longer need to `unneeded`.
local function finish_all(state, texts, unneeded)
  for _, text in ipairs(texts) do
    if not finish(state, text, unneeded) then return false end
  end
  return true
end

local function settle(settlement)
  local state = KEYS[settlement.state]
  for _, field in ipairs(settlement.earlier or {}) do
    if redis.call('HGET', state, 'part:' .. field) ~= 'done' then return end -- the worker reads the response again
  end
  local unneeded = {}
  local all_finished = finish_all(state, settlement.closed, unneeded)
  local settled = all_finished and not settlement.partial
  for _, field in ipairs(settled and settlement.applied_endings or {}) do
    unneeded[#unneeded + 1] = 'end:' .. field
    unneeded[#unneeded + 1] = 'note:' .. field
  end
  in_slices(unneeded, function(...) redis.call('HDEL', state, ...) end)
  if settlement.partial then return end
  if all_finished then update_waiting(state, settlement) end
  for _, each in ipairs(settlement.contradictions or {}) do
    if redis.call('HGET', state, 'part:' .. each.field) == 'done' then contradict(state, each.field, each.alert) end
  end
  if not settlement.ended then return end
  local loaded = load_state(state)
  if all_finished and settlement.outcome then conclude(state, loaded, settlement.outcome) end
  mark_as_over(state, loaded, KEYS[settlement.marker], settlement.member)
end

for _, settlement in ipairs(plan.settlements) do
  local idle_since = settlement.idle_since_ms
  if not idle_since or tonumber(redis.call('ZSCORE', OPEN, settlement.member)) == idle_since then settle(settlement) end
end
in_slices(not_waiting, function(...) redis.call('ZREM', WAITING, ...) end)
in_slices(over, function(...) redis.call('ZREM', OPEN, ...) end)
in_slices(logs, function(...) redis.call('DEL', ...) end)
if next(tallies) then count_tallies() end
return cmsgpack.pack({written, raised, late})
