#!lua
-- Writes the finished texts of responses, with their alerts, once each, and drops what they were made of.
--
-- KEYS  1 assembled   2 alerts   3 counts   4 open   5 waiting   6… states, logs and items, by number
-- ARGV  1 the plan, MessagePack:
--         settlements    {state, member, version, spent {field, …}, doubtful_ms, ended, idle_since_ms,
--                         texts {field, log, log_bytes, item, item_field, message, json, opened, finished, late}}
--         marker_ttl_ms  how long a response without anything open is remembered
--         item_ttl_ms    how long a finished item is kept
-- Returns MessagePack: {{settlement, text}, …}, the numbers from 0 of the texts this run has written

local ASSEMBLED, ALERTS, COUNTS, OPEN, WAITING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local plan = cmsgpack.unpack(ARGV[1])

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

-- Forgets a response that has ended, unless something of it is open, or has just come.
local function forget(state, member)
  local remembered = false
  local fields = redis.call('HGETALL', state)
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    local is_part = string.sub(name, 1, 5) == 'part:'
    if string.sub(name, 1, 4) == 'end:' or (is_part and value ~= 'done') then return end
    remembered = remembered or is_part
  end
  redis.call('ZREM', OPEN, member)
  if remembered then
    redis.call('PEXPIRE', state, plan.marker_ttl_ms)
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
    if settlement.ended then forget(state, member) end
  end
end
return cmsgpack.pack(written)
