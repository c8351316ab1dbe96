#!lua
-- Writes the finished texts of responses, with their alerts, once each, and drops what they were made of.
-- It checks all that could end it before it writes anything: see commit.lua.
--
-- KEYS  1 assembled   2 alerts   3 counts   4 open   5 waiting   6… states, logs, items and buckets, by number
-- ARGV  1 the plan, MessagePack:
--         settlements    {state, marker, member, version, spent {field, …}, doubtful_ms, ended, idle_since_ms,
--                         partial, earlier {field, …},
--                         texts {field, log, log_bytes, late, item, item_field, id, message, json, digest, opened,
--                         finished, contradicted} (a copy that is dropped has the first four),
--                         contradictions {field, alert},
--                         over {alerts {type, entry}, counted_for {{scope, name}, …}, buckets {number, …},
--                         refused, blocked, cancelled}}
--                        partial: more texts of the response follow in a later call, and then what its end means;
--                        earlier: the parts whose texts came in the calls before
--         marker_ttl_ms  how long a marker remembers a response that is over, if it had a text or an alert
--         over_ttl_ms    how long the state of a response that is over stays
--         item_ttl_ms    how long a finished item is kept
--         buckets        {key, names, start_ms, expires_ms}: where responses that are over are counted, by time, and
--                        the names that they are counted for, by their weights
--         history        which one of the data the responses, and what is pending, were read from
--         names_at_most  how many names a bucket has; the lightest make room for new ones, and count as `other`
-- Returns MessagePack: {{settlement, text}, …}, the numbers from 0 of the texts this run has written: none if the
--         history is another now
--
-- A marker, MessagePack: {1 if the response was counted, {alert type, …}, part, digest of its text, …}; a `!` before a
-- digest means that the alert about another text was raised. A marker is a small key of its own, since there are many
-- for a long time. The state stays beside it for a while, for workers of v0.1.0, which do not know markers.

local ASSEMBLED, ALERTS, COUNTS, OPEN, WAITING = unpack(KEYS, 1, 5)
local plan = cmsgpack.unpack(ARGV[1])

-- ------------------------------------------------------------------------------------------------------- check

if plan.history ~= current_history() then return cmsgpack.pack({}) end

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
  for _, command in ipairs({'STRLEN', 'DEL'}) do must_be_allowed(command, text.log) end
  if not text.item then return end
  must_be_allowed('HGET', text.item, text.item_field)
  must_be_allowed('HSETNX', text.item, text.item_field, '')
  must_be_allowed('PEXPIRE', text.item, '1')
end

local function check_rights_to_names(names)
  for _, command in ipairs({'ZCARD', 'ZPOPMIN'}) do must_be_allowed(command, names) end
  must_be_allowed('ZSCORE', names, '')
  for _, command in ipairs({'ZADD', 'ZINCRBY'}) do must_be_allowed(command, names, '1', '') end
end

for s, settlement in ipairs(plan.settlements) do
  local state, marker = KEYS[settlement.state], KEYS[settlement.marker]
  must_be_a('hash', state)
  if settlement.ended then must_be_a('string', marker) end
  if s == 1 then check_rights(state, marker) end
  for t, text in ipairs(settlement.texts) do
    text.number = {s - 1, t - 1}
    text.log, text.item = KEYS[text.log], text.item and KEYS[text.item]
    must_be_a('string', text.log)
    if text.item then must_be_a('hash', text.item) end
    if s == 1 and t == 1 then check_rights_to(text) end
  end
end
for b, bucket in ipairs(plan.buckets) do
  must_be_a('hash', KEYS[bucket.key])
  must_be_a('zset', KEYS[bucket.names])
  if b == 1 then check_rights_to_names(KEYS[bucket.names]) end
end

-- ------------------------------------------------------------------------------------------------------- apply

-- Raises the alert about another text for a finished part, once a part.
local function contradict(state, field, alert)
  if not alert or redis.call('HEXISTS', state, 'contradicted:' .. field) == 1 then return end
  redis.call('XADD', ALERTS, '*', unpack(alert))
  redis.call('HSET', state, 'contradicted:' .. field, '1')
  add_to(COUNTS, 'contradicted', 1)
end

-- Writes a text that is not written yet, and notes it in its item, so that it is written once.
local function write(state, text, written)
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

-- Returns true if the item has this text. Then it stays, although nothing else remembers the part: an id never has two.
-- The place may have another part's text, since an item id may be another response's. (Quotation marks within a text
-- are escaped.)
local function is_shown(text)
  local json = redis.call('HGET', text.item, text.item_field)
  return json and string.find(json, '"id":"' .. text.id .. '"', 1, true) ~= nil
end

-- Returns true if a part is finished now, or was before; false if something came for it since it was read.
local function finish(state, text, written)
  local part = 'part:' .. text.field
  if redis.call('HGET', state, part) == 'done' then
    -- The worker that finished it may not have seen the other text, and this settlement may remove the ending with it.
    contradict(state, text.field, text.contradicted)
    return true
  end
  if redis.call('STRLEN', text.log) ~= text.log_bytes then return false end
  if text.message and not is_shown(text) then write(state, text, written) end
  redis.call('HSET', state, part, 'done')
  redis.call('HDEL', state, 'size:' .. text.field)
  redis.call('DEL', text.log)
  if text.late > 0 then add_to(COUNTS, 'late', text.late) end
  return true
end

-- What is counted in this run, bucket by bucket: {scope:name = {scope, name, responses, refused, blocked}}.
local tallies = {}

-- Once a response is over: raises the alerts for how it ended, each type once, and counts it: as refused if any
-- part of it is a refusal, or its reason says so; else as blocked, if something stopped it. A cancelled response
-- counts only if it was refused. If the state is gone, all of this was done before.
local function conclude(state, over)
  if redis.call('EXISTS', state) == 0 then return end
  for _, alert in ipairs(over.alerts) do
    local field = 'alerted:' .. alert.type
    if redis.call('HEXISTS', state, field) == 0 then
      redis.call('XADD', ALERTS, '*', unpack(alert.entry))
      redis.call('HSET', state, field, '1')
    end
  end
  if #over.buckets == 0 or redis.call('HSETNX', state, 'over', '1') == 0 then return end
  local refused = over.refused and 1 or 0
  for _, field in ipairs(redis.call('HKEYS', state)) do
    if string.match(field, '^alerted:%d+:%d+:refusal$') then refused = 1 end
  end
  if over.cancelled and refused == 0 then return end
  local blocked = over.blocked and refused == 0 and 1 or 0
  for _, bucket in ipairs(over.buckets) do
    tallies[bucket] = tallies[bucket] or {}
    for _, subject in ipairs(over.counted_for) do
      local name = subject[1] .. ':' .. subject[2]
      local tally = tallies[bucket][name]
        or {scope = subject[1], name = subject[2], responses = 0, refused = 0, blocked = 0}
      tally.responses, tally.refused = tally.responses + 1, tally.refused + refused
      tally.blocked = tally.blocked + blocked
      tallies[bucket][name] = tally
    end
  end
end

-- Returns the bucket's field that counts for a model, a tenant or a provider. Workers of v0.1.0 take every scope but
-- `model` for a tenant, so providers are counted in fields that they ignore.
local function field_of(what, scope, name)
  if scope == 'provider' then return what .. '.provider:' .. name end
  return what .. ':' .. scope .. ':' .. name
end

-- Moves what was counted for a name to `other`, and forgets the name.
local function merge(key, subject)
  local scope, name = string.match(subject, '^(%l+):(.*)$')
  for _, what in ipairs({'responses', 'refused', 'blocked'}) do
    local field = field_of(what, scope, name)
    local n = tonumber(redis.call('HGET', key, field) or '0') or 0
    if n > 0 then add_to(key, field_of(what, scope, plan.other), n) end
    redis.call('HDEL', key, field)
  end
end

-- Adds what was counted to a bucket; a name weighs as much as it has responses.
local function count_in(key, weights, tallies)
  for subject, tally in pairs(tallies) do
    local scope, name = tally.scope, tally.name
    local lightest = make_room(weights, plan.names_at_most, subject)
    if lightest then merge(key, lightest) end
    redis.call('ZINCRBY', weights, tally.responses, subject)
    add_to(key, field_of('responses', scope, name), tally.responses)
    add_to(key, field_of('refused', scope, name), tally.refused)
    if tally.blocked > 0 then add_to(key, field_of('blocked', scope, name), tally.blocked) end
  end
end

-- Writes what was counted; not where nobody would ask for it, because it is too old.
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

-- Returns the marker of a state; nil if it has neither a part nor an alert to remember.
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

-- Forgets a response that has ended, unless something of it is open, or has just come.
local function forget(state, marker_key, member)
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

-- Says until when a response waits, unless something came for it since it was read.
local function wait_on(state, settlement)
  if tonumber(redis.call('HGET', state, 'version') or 0) ~= settlement.version then return end
  if settlement.doubtful_ms then
    redis.call('ZADD', WAITING, settlement.doubtful_ms, settlement.member)
  else
    redis.call('ZREM', WAITING, settlement.member)
  end
end

local written = {}
-- Finishes texts, and drops copies, up to the first for which something has come since it was read: what is finished
-- was always closed before what is not. Returns true if that is all.
local function finish_all(state, texts, written)
  for _, text in ipairs(texts) do
    if not finish(state, text, written) then return false end
  end
  return true
end

local function settle(settlement)
  local state = KEYS[settlement.state]
  for _, field in ipairs(settlement.earlier) do
    if redis.call('HGET', state, 'part:' .. field) ~= 'done' then return end -- all of the response is read again
  end
  local all_finished = finish_all(state, settlement.texts, written)
  if settlement.partial then return end
  if all_finished then
    for _, field in ipairs(settlement.spent) do redis.call('HDEL', state, 'end:' .. field, 'note:' .. field) end
    wait_on(state, settlement)
  end
  for _, each in ipairs(settlement.contradictions) do
    if redis.call('HGET', state, 'part:' .. each.field) == 'done' then contradict(state, each.field, each.alert) end
  end
  if all_finished and settlement.over then conclude(state, settlement.over) end
  if settlement.ended then forget(state, KEYS[settlement.marker], settlement.member) end
end

for _, settlement in ipairs(plan.settlements) do
  local idle_since = settlement.idle_since_ms
  if not idle_since or tonumber(redis.call('ZSCORE', OPEN, settlement.member)) == idle_since then settle(settlement) end
end
if next(tallies) then count_tallies() end
return cmsgpack.pack(written)
