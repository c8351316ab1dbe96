#!lua
-- Write the finished texts of responses and their alerts, once each, and delete their logs.
-- The script checks everything that could fail before its first write: see commit.lua.
--
-- KEYS  1 assembled   2 alerts   3 counts   4 open   5 waiting   6… states, markers, logs, items and buckets, which
--       the plan refers to by index
-- ARGV  1 the plan, MessagePack:
--         settlements    {state, marker, member, version, applied_endings {field, …}, unsettled_ms, ended, idle_since_ms,
--                         partial, earlier {field, …},
--                         closed {field, log, log_bytes, late, item, item_field, id, message, json, digest, opened,
--                         finished, contradicted} (a dropped copy has the first four),
--                         contradictions {field, alert},
--                         outcome {alerts {type, entry}, counted_for {{scope, name}, …}, buckets {number, …},
--                         refused, blocked, cancelled, refusing {kind, …}}}
--                        version: the state's version that was read
--                        applied_endings: arrivals of applied endings, to be deleted
--                        unsettled_ms: ms of the entry that the response waits for; absent if it does not wait
--                        ended: true to write a marker, and let the state expire
--                        idle_since_ms: settle only if the response's score in OPEN is still this one
--                        partial: true if a later call has more texts of the response and the effects of its end
--                        earlier: the parts that earlier calls have settled
--                        closed: texts and dropped copies, in order; log_bytes is the log's length when it was read,
--                        late the number of its deltas after the closing event
--                        outcome: the effects of the response's end
--         marker_ttl_ms  TTL of the marker of a response that is over
--         over_ttl_ms    TTL of the state of a response that is over
--         item_ttl_ms    TTL of a finished item
--         buckets        {key, names, start_ms, expires_ms}: the hash and the time range in which responses that are
--                        over are counted, and the sorted set of the names in it, by weight
--         replication_id        the replication id under which the responses and the low-water mark were read
--         names_at_most  maximum number of names in a bucket; a replaced name is counted as `other`
--         other          the name under which replaced names are counted
-- Returns MessagePack: {{settlement, closed}, …}, the indexes from 0 of the texts that this run has written; empty if
--         the replication id has changed
--
-- A marker is MessagePack: {1 if the response was counted, {alert type, …}, part, digest of its text, …}. A `!` before
-- a digest means that the alert about another text was raised. Markers are small keys, because many are kept for a
-- long time. The state stays next to its marker for a while, for workers of v0.1.0, which do not know markers.

local ASSEMBLED, ALERTS, COUNTS, OPEN, WAITING = unpack(KEYS, 1, 5)
local plan = cmsgpack.unpack(ARGV[1])

-- ------------------------------------------------------------------------------------------------------- check

if plan.replication_id ~= current_replication_id() then return cmsgpack.pack({}) end

must_be_a('stream', ASSEMBLED)
must_be_a('stream', ALERTS)
must_be_a('hash', COUNTS)
must_be_a('zset', OPEN)
must_be_a('zset', WAITING)
for _, stream in ipairs({ASSEMBLED, ALERTS}) do must_be_allowed('XADD', stream, '*', '', '') end

local function check_rights(state, marker)
  for _, command in ipairs({'EXISTS', 'HGETALL', 'HKEYS', 'DEL'}) do must_be_allowed(command, state) end
  for _, command in ipairs({'HGET', 'HEXISTS', 'HDEL'}) do must_be_allowed(command, state, 'over') end
  for _, command in ipairs({'HSET', 'HSETNX'}) do must_be_allowed(command, state, 'over', '1') end
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

-- Read what the next phase compares. Like TYPE, these reads fail if a key has another type.
for s, settlement in ipairs(plan.settlements) do
  local state, marker = KEYS[settlement.state], KEYS[settlement.marker]
  settlement.version_now = tonumber(redis.call('HGET', state, 'version') or 0)
  if settlement.ended then must_be_a('string', marker) end
  if s == 1 then check_rights(state, marker) end
  for t, text in ipairs(settlement.closed) do
    text.number = {s - 1, t - 1}
    text.log, text.item = KEYS[text.log], text.item and KEYS[text.item]
    text.log_bytes_now = redis.call('STRLEN', text.log)
    text.was_in_item = text.item and is_in_item(text)
    if s == 1 and t == 1 then check_rights_to(text) end
  end
end
for b, bucket in ipairs(plan.buckets) do
  must_be_a('hash', KEYS[bucket.key])
  must_be_a('zset', KEYS[bucket.names])
  if b == 1 then check_rights_to_names(KEYS[bucket.names]) end
end

-- ------------------------------------------------------------------------------------------------------- apply

-- Raise the alert about another text for a finished part, once per part.
local function contradict(state, field, alert)
  if not alert or redis.call('HEXISTS', state, 'contradicted:' .. field) == 1 then return end
  redis.call('XADD', ALERTS, '*', unpack(alert))
  redis.call('HSET', state, 'contradicted:' .. field, '1')
  add_to(COUNTS, 'contradicted', 1)
end

-- The texts that this run has written: their indexes in the plan.
local written = {}

-- Write a text to its stream and its item, and raise its alerts.
local function write(state, text)
  redis.call('XADD', ASSEMBLED, '*', unpack(text.message))
  if redis.call('HSETNX', text.item, text.item_field, text.json) == 1 then
    redis.call('PEXPIRE', text.item, plan.item_ttl_ms)
  end
  if text.opened and redis.call('HEXISTS', state, 'alerted:' .. text.field) == 0 then
    redis.call('XADD', ALERTS, '*', unpack(text.opened))
    redis.call('HSET', state, 'alerted:' .. text.field, '1')
  end
  if text.finished then redis.call('XADD', ALERTS, '*', unpack(text.finished)) end
  redis.call('HSET', state, 'digest:' .. text.field, text.digest)
  contradict(state, text.field, text.contradicted)
  written[#written + 1] = text.number
end

-- Finish a part. Return true if it is finished now or was before, false if its log has changed since it was read.
local function finish(state, text)
  local part = 'part:' .. text.field
  if redis.call('HGET', state, part) == 'done' then
    -- The worker that finished it may not have seen the other text, and this settlement may delete the ending that has
    -- the text.
    contradict(state, text.field, text.contradicted)
    return true
  end
  if text.log_bytes_now ~= text.log_bytes then return false end
  if text.message and not text.was_in_item then write(state, text) end
  redis.call('HSET', state, part, 'done')
  redis.call('HDEL', state, 'size:' .. text.field)
  redis.call('DEL', text.log)
  if text.late > 0 then add_to(COUNTS, 'late', text.late) end
  return true
end

-- The counts of this run, by bucket number: {<scope>:<name> = {scope, name, responses, refused, blocked}}.
local tallies = {}

-- Apply the effects of a response's end: raise its alerts, each type once, and count the response once. It counts as
-- refused if its reason says so or a part of a kind in `refusing` has raised its alert, else as blocked if a filter
-- stopped it. A cancelled response counts only if it was refused. A missing state means that the effects were applied
-- before.
local function conclude(state, outcome)
  if redis.call('EXISTS', state) == 0 then return end
  for _, alert in ipairs(outcome.alerts) do
    local field = 'alerted:' .. alert.type
    if redis.call('HEXISTS', state, field) == 0 then
      redis.call('XADD', ALERTS, '*', unpack(alert.entry))
      redis.call('HSET', state, field, '1')
    end
  end
  if #outcome.buckets == 0 or redis.call('HSETNX', state, 'over', '1') == 0 then return end
  local refused, refuses = outcome.refused and 1 or 0, {}
  for _, kind in ipairs(outcome.refusing) do refuses[kind] = true end
  for _, field in ipairs(redis.call('HKEYS', state)) do
    local kind = string.match(field, '^alerted:%d+:%d+:(.*)$')
    if kind and refuses[kind] then refused = 1 end
  end
  if outcome.cancelled and refused == 0 then return end
  local blocked = outcome.blocked and refused == 0 and 1 or 0
  for _, bucket in ipairs(outcome.buckets) do
    tallies[bucket] = tallies[bucket] or {}
    for _, subject in ipairs(outcome.counted_for) do
      local name = subject[1] .. ':' .. subject[2]
      local tally = tallies[bucket][name]
        or {scope = subject[1], name = subject[2], responses = 0, refused = 0, blocked = 0}
      tally.responses, tally.refused = tally.responses + 1, tally.refused + refused
      tally.blocked = tally.blocked + blocked
      tallies[bucket][name] = tally
    end
  end
end

-- Return the bucket's field for a count of a model, a tenant or a provider. Workers of v0.1.0 read every scope except
-- `model` as a tenant, so providers have fields that those workers ignore.
local function field_of(what, scope, name)
  if scope == 'provider' then return what .. '.provider:' .. name end
  return what .. ':' .. scope .. ':' .. name
end

-- Move the counts of a name to `other`, and delete its fields.
local function merge(key, subject)
  local scope, name = string.match(subject, '^(%l+):(.*)$')
  for _, what in ipairs({'responses', 'refused', 'blocked'}) do
    local field = field_of(what, scope, name)
    local n = tonumber(redis.call('HGET', key, field) or '0') or 0
    if n > 0 then add_to(key, field_of(what, scope, plan.other), n) end
    redis.call('HDEL', key, field)
  end
end

-- Add the counts of this run to a bucket. The weight of a name is its number of responses.
local function count_in(key, weights, tally_of)
  for subject, tally in pairs(tally_of) do
    local scope, name = tally.scope, tally.name
    local lightest = make_room(weights, plan.names_at_most, subject)
    if lightest then merge(key, lightest) end
    redis.call('ZINCRBY', weights, tally.responses, subject)
    add_to(key, field_of('responses', scope, name), tally.responses)
    add_to(key, field_of('refused', scope, name), tally.refused)
    if tally.blocked > 0 then add_to(key, field_of('blocked', scope, name), tally.blocked) end
  end
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

-- Return the marker of a state; nil if the state has neither a part nor an alert about its end.
local function marker_of(state)
  local types, parts = {}, {}
  for name in pairs(state) do
    local part, alert_type = string.match(name, '^part:(.*)$'), string.match(name, '^alerted:(deltaloom%..*)$')
    if part then parts[#parts + 1] = part end
    if alert_type then types[#types + 1] = alert_type end
  end
  if #types + #parts == 0 then return nil end
  local marker = {state['over'] and 1 or 0, types}
  for _, part in ipairs(parts) do
    marker[#marker + 1] = part
    marker[#marker + 1] = (state['contradicted:' .. part] and '!' or '') .. (state['digest:' .. part] or '')
  end
  return cmsgpack.pack(marker)
end

-- Write the marker of a response that is over, and let its state expire, unless a part is open or an ending is not
-- applied yet.
local function mark_as_over(state, marker_key, member)
  local fields, flat = {}, redis.call('HGETALL', state)
  for i = 1, #flat, 2 do
    local name, value = flat[i], flat[i + 1]
    if string.sub(name, 1, 4) == 'end:' or (string.sub(name, 1, 5) == 'part:' and value ~= 'done') then return end
    fields[name] = value
  end
  redis.call('ZREM', OPEN, member)
  local marker = marker_of(fields)
  if marker then redis.call('SET', marker_key, marker, 'PX', plan.marker_ttl_ms) end
  if marker or fields['over'] then
    redis.call('PEXPIRE', state, plan.over_ttl_ms)
  else
    redis.call('DEL', state)
  end
end

-- Set or delete the ms for which a response waits, unless closings or endings came since it was read.
local function update_waiting(state, settlement)
  if settlement.version_now ~= settlement.version then return end
  if settlement.unsettled_ms then
    redis.call('ZADD', WAITING, settlement.unsettled_ms, settlement.member)
  else
    redis.call('ZREM', WAITING, settlement.member)
  end
end

-- Finish texts and drop copies in order, up to the first with a changed log, so that no text is finished before one
-- that was closed earlier. Return true if all are finished.
local function finish_all(state, texts)
  for _, text in ipairs(texts) do
    if not finish(state, text) then return false end
  end
  return true
end

local function settle(settlement)
  local state = KEYS[settlement.state]
  for _, field in ipairs(settlement.earlier) do
    if redis.call('HGET', state, 'part:' .. field) ~= 'done' then return end -- the worker reads the response again
  end
  local all_finished = finish_all(state, settlement.closed)
  if settlement.partial then return end
  if all_finished then
    for _, field in ipairs(settlement.applied_endings) do redis.call('HDEL', state, 'end:' .. field, 'note:' .. field) end
    update_waiting(state, settlement)
  end
  for _, each in ipairs(settlement.contradictions) do
    if redis.call('HGET', state, 'part:' .. each.field) == 'done' then contradict(state, each.field, each.alert) end
  end
  if all_finished and settlement.outcome then conclude(state, settlement.outcome) end
  if settlement.ended then mark_as_over(state, KEYS[settlement.marker], settlement.member) end
end

for _, settlement in ipairs(plan.settlements) do
  local idle_since = settlement.idle_since_ms
  if not idle_since or tonumber(redis.call('ZSCORE', OPEN, settlement.member)) == idle_since then settle(settlement) end
end
if next(tallies) then count_tallies() end
return cmsgpack.pack(written)
