#!lua
-- Writes the finished texts of responses, with their alerts, once each, and drops what they were made of.
--
-- KEYS  1 assembled   2 alerts   3 counts   4 open   5 waiting   6… states, logs, items and buckets, by number
-- ARGV  1 the plan, MessagePack:
--         settlements    {state, member, version, spent {field, …}, doubtful_ms, ended, idle_since_ms,
--                         texts {field, log, log_bytes, item, item_field, message, json, opened, finished, late},
--                         over {alerts {type, entry}, counted_for {{scope, name}, …}, buckets {number, …}}}
--         marker_ttl_ms  how long a response without anything open is remembered
--         over_ttl_ms    how long one is that never had a text, or an alert
--         item_ttl_ms    how long a finished item is kept
--         buckets        {key, start_ms, expires_ms}: where responses that are over are counted, by time
--         history        which one of the data the responses, and what is pending, were read from
--         names_at_most  how many names a bucket has, about; further ones count under the name `other`
-- Returns MessagePack: {{settlement, text}, …}, the numbers from 0 of the texts this run has written: none if the
--         history is another now

local ASSEMBLED, ALERTS, COUNTS, OPEN, WAITING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local plan = cmsgpack.unpack(ARGV[1])

-- The history of the data, as this server has it: another after a failover or a restart, which may have lost some.
local info = redis.pcall('INFO', 'replication')
local history = type(info) == 'string' and string.match(info, 'master_replid:(%x+)') or ''
if plan.history ~= history then return cmsgpack.pack({}) end

-- Whether it is finished now, or was before; not if something came for it since it was read.
local function finish(state, text, written)
  local part = 'part:' .. text.field
  local known = redis.call('HGET', state, part)
  if known == 'done' then return true end
  if redis.call('STRLEN', KEYS[text.log]) ~= text.log_bytes then return false end
  redis.call('XADD', ASSEMBLED, '*', unpack(text.message))
  redis.call('HSET', KEYS[text.item], text.item_field, text.json)
  redis.call('PEXPIRE', KEYS[text.item], plan.item_ttl_ms)
  if text.opened and redis.call('HSETNX', state, 'alerted:' .. text.field, '1') == 1 then
    redis.call('XADD', ALERTS, '*', unpack(text.opened))
  end
  if text.finished then redis.call('XADD', ALERTS, '*', unpack(text.finished)) end
  redis.call('HSET', state, part, 'done')
  redis.call('HDEL', state, 'size:' .. text.field)
  redis.call('DEL', KEYS[text.log])
  if text.late > 0 then redis.call('HINCRBY', COUNTS, 'late', text.late) end
  written[#written + 1] = text.number
  return true
end

-- What is counted in this run, bucket by bucket: {scope:name = {responses, refused}}.
local tallies = {}

-- Once a response is over: raises the alerts for how it ended, each type once, and counts it, as refused if any
-- part of it is a refusal. Of a state that is gone this was done long ago.
local function conclude(state, over)
  if redis.call('EXISTS', state) == 0 then return end
  for _, alert in ipairs(over.alerts) do
    if redis.call('HSETNX', state, 'alerted:' .. alert.type, '1') == 1 then
      redis.call('XADD', ALERTS, '*', unpack(alert.entry))
    end
  end
  if #over.buckets == 0 or redis.call('HSETNX', state, 'over', '1') == 0 then return end
  local refused = 0
  for _, field in ipairs(redis.call('HKEYS', state)) do
    if string.match(field, '^alerted:%d+:%d+:refusal$') then refused = 1 end
  end
  for _, bucket in ipairs(over.buckets) do
    tallies[bucket] = tallies[bucket] or {}
    for _, subject in ipairs(over.counted_for) do
      local name = subject[1] .. ':' .. subject[2]
      local tally = tallies[bucket][name] or {scope = subject[1], responses = 0, refused = 0}
      tally.responses, tally.refused = tally.responses + 1, tally.refused + refused
      tallies[bucket][name] = tally
    end
  end
end

-- Writes what was counted; not where nobody would ask for it, because it is too old, or of a time to come.
local function count_tallies()
  local time = redis.call('TIME')
  local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  for number, names in pairs(tallies) do
    local bucket = plan.buckets[number]
    local key = KEYS[bucket.key]
    if bucket.start_ms <= now_ms and now_ms < bucket.expires_ms then
      for name, tally in pairs(names) do
        local known = redis.call('HEXISTS', key, 'responses:' .. name) == 1
        if not known and redis.call('HLEN', key) >= plan.names_at_most * 2 then
          name = tally.scope .. ':' .. plan.other
        end
        redis.call('HINCRBY', key, 'responses:' .. name, tally.responses)
        redis.call('HINCRBY', key, 'refused:' .. name, tally.refused)
      end
      redis.call('PEXPIREAT', key, bucket.expires_ms)
    end
  end
end

-- Forgets a response that has ended, unless something of it is open, or has just come.
local function forget(state, member)
  local remembered, over = false, false
  local fields = redis.call('HGETALL', state)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local is_part = string.sub(name, 1, 5) == 'part:'
    if string.sub(name, 1, 4) == 'end:' or (is_part and value ~= 'done') then return end
    remembered = remembered or is_part or string.sub(name, 1, 8) == 'alerted:'
    over = over or name == 'over'
  end
  redis.call('ZREM', OPEN, member)
  if remembered then
    redis.call('PEXPIRE', state, plan.marker_ttl_ms)
  elseif over then
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
      all_finished = finish(state, text, written) and all_finished
    end
    if all_finished then
      for _, field in ipairs(settlement.spent) do redis.call('HDEL', state, 'end:' .. field) end
    end
    if all_finished and tonumber(redis.call('HGET', state, 'version') or 0) == settlement.version then
      if settlement.doubtful_ms then
        redis.call('ZADD', WAITING, settlement.doubtful_ms, member)
      else
        redis.call('ZREM', WAITING, member)
      end
    end
    if all_finished and settlement.over then conclude(state, settlement.over) end
    if settlement.ended then forget(state, member) end
  end
end
if next(tallies) then count_tallies() end
return cmsgpack.pack(written)
