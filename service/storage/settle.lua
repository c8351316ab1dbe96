#!lua
-- Writes the finished texts of responses, with their alerts, once each, and drops what they were made of.
--
-- KEYS  1 assembled   2 alerts   3 counts   4 open   5 waiting   6… states, logs, items and buckets, by number
-- ARGV  1 the plan, MessagePack:
--         settlements    {state, marker, member, version, spent {field, …}, doubtful_ms, ended, idle_since_ms,
--                         texts {field, log, log_bytes, late, item, item_field, id, message, json, whole, digest,
--                         opened, finished, contradicted} (a copy that is dropped has the first four),
--                         contradictions {field, alert},
--                         over {alerts {type, entry}, counted_for {{scope, name}, …}, buckets {number, …},
--                         refused, blocked, cancelled}}
--         marker_ttl_ms  how long a marker remembers a response that is over, if it had a text or an alert
--         over_ttl_ms    how long the state of a response that is over stays
--         item_ttl_ms    how long a finished item is kept
--         buckets        {key, start_ms, expires_ms}: where responses that are over are counted, by time
--         history        which one of the data the responses, and what is pending, were read from
--         names_at_most  how many names a bucket has, about; further ones count under the name `other`
-- Returns MessagePack: {{settlement, text}, …}, the numbers from 0 of the texts this run has written: none if the
--         history is another now
--
-- A marker, MessagePack: {1 if the response was counted, {alert type, …}, part, digest of its text, …}; a `!` before a
-- digest means that the alert about another text was raised. A marker is a small key of its own, since there are many
-- for a long time. The state stays beside it for a while, for workers of v0.1.0, which do not know markers.

local ASSEMBLED, ALERTS, COUNTS, OPEN, WAITING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local plan = cmsgpack.unpack(ARGV[1])

-- The history of the data, as this server has it: another after a failover or a restart, which may have lost some.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
if plan.history ~= history then return cmsgpack.pack({}) end

-- Raises the alert about another text for a finished part, once a part.
local function contradict(state, field, alert)
  if alert and redis.call('HSETNX', state, 'contradicted:' .. field, '1') == 1 then
    redis.call('XADD', ALERTS, '*', unpack(alert))
    redis.call('HINCRBY', COUNTS, 'contradicted', 1)
  end
end

-- Puts a text into its item's hash; false if it is there already. If the item has a text although nothing else
-- remembers the part, that text stays: an id never has two. A text of another part stays too: an item id may be
-- another response's id. (Quotation marks within a text are escaped.)
local function show(text)
  local item = KEYS[text.item]
  if redis.call('HSETNX', item, text.item_field, text.json) == 1 then
    redis.call('PEXPIRE', item, plan.item_ttl_ms)
    return true
  end
  return not string.find(redis.call('HGET', item, text.item_field), '"id":"' .. text.id .. '"', 1, true)
end

-- Whether it is finished now, or was before; not if something came for it since it was read.
local function finish(state, text, written)
  local part = 'part:' .. text.field
  local known = redis.call('HGET', state, part)
  if known == 'done' then
    -- The worker that finished it may not have seen the other text, and this settlement may remove the ending with it.
    contradict(state, text.field, text.contradicted)
    return true
  end
  if redis.call('STRLEN', KEYS[text.log]) ~= text.log_bytes then return false end
  if text.message and show(text) then
    redis.call('XADD', ASSEMBLED, '*', unpack(text.message))
    if text.opened and redis.call('HSETNX', state, 'alerted:' .. text.field, '1') == 1 then
      redis.call('XADD', ALERTS, '*', unpack(text.opened))
    end
    if text.finished then redis.call('XADD', ALERTS, '*', unpack(text.finished)) end
    redis.call('HSET', state, 'digest:' .. text.field, text.digest)
    contradict(state, text.field, text.contradicted)
    written[#written + 1] = text.number
  end
  redis.call('HSET', state, part, 'done')
  redis.call('HDEL', state, 'size:' .. text.field)
  redis.call('DEL', KEYS[text.log])
  if text.late > 0 then redis.call('HINCRBY', COUNTS, 'late', text.late) end
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
    if redis.call('HSETNX', state, 'alerted:' .. alert.type, '1') == 1 then
      redis.call('XADD', ALERTS, '*', unpack(alert.entry))
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

-- Writes what was counted; not where nobody would ask for it, because it is too old, or of a time to come.
local function count_tallies()
  local time = redis.call('TIME')
  local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  for number, names in pairs(tallies) do
    local bucket = plan.buckets[number]
    local key = KEYS[bucket.key]
    if bucket.start_ms <= now_ms and now_ms < bucket.expires_ms then
      for _, tally in pairs(names) do
        local scope, name = tally.scope, tally.name
        local known = redis.call('HEXISTS', key, field_of('responses', scope, name)) == 1
        if not known and redis.call('HLEN', key) >= plan.names_at_most * 2 then name = plan.other end
        redis.call('HINCRBY', key, field_of('responses', scope, name), tally.responses)
        redis.call('HINCRBY', key, field_of('refused', scope, name), tally.refused)
        if tally.blocked > 0 then redis.call('HINCRBY', key, field_of('blocked', scope, name), tally.blocked) end
      end
      redis.call('PEXPIREAT', key, bucket.expires_ms)
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

local written = {}
for s, settlement in ipairs(plan.settlements) do
  local state, member = KEYS[settlement.state], settlement.member
  local idle_since = settlement.idle_since_ms
  if not idle_since or tonumber(redis.call('ZSCORE', OPEN, member)) == idle_since then
    local all_finished = true
    for t, text in ipairs(settlement.texts) do
      text.number = {s - 1, t - 1}
      -- A copy goes with the text that it is of. A text that came whole, and has to be read again, would be taken for
      -- a copy of a later one.
      local finished = (text.message or all_finished) and finish(state, text, written)
      all_finished = all_finished and finished
      if text.whole and not finished then break end
    end
    if all_finished then
      for _, field in ipairs(settlement.spent) do redis.call('HDEL', state, 'end:' .. field, 'note:' .. field) end
    end
    if all_finished and tonumber(redis.call('HGET', state, 'version') or 0) == settlement.version then
      if settlement.doubtful_ms then
        redis.call('ZADD', WAITING, settlement.doubtful_ms, member)
      else
        redis.call('ZREM', WAITING, member)
      end
    end
    for _, each in ipairs(settlement.contradictions) do
      if redis.call('HGET', state, 'part:' .. each.field) == 'done' then contradict(state, each.field, each.alert) end
    end
    if all_finished and settlement.over then conclude(state, settlement.over) end
    if settlement.ended then forget(state, KEYS[settlement.marker], member) end
  end
end
if next(tallies) then count_tallies() end
return cmsgpack.pack(written)
