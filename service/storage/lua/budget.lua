#!lua flags=allow-oom
-- Trim outputs to a budget of bytes: the oldest entries of all streams first, and only entries that every group of their
-- stream has acknowledged. A cut moves from the oldest entry towards now, each time by a part of the way that is left,
-- until the outputs are within the budget. So they are trimmed by that part more than necessary, at most.
-- The script also runs while the server is out of memory, to free some. `~` trims whole nodes, which is cheap.
--
-- KEYS  outputs
-- ARGV  1 budget in bytes   2 maximum number of entries to trim from each stream in one call
-- Returns {1 if there may be more to trim, bytes of all outputs, number of the largest stream that a group holds back, or
--          of the largest of all; bytes of that stream, the group that holds it back or ''}

local BUDGET, AT_MOST = tonumber(ARGV[1]), tonumber(ARGV[2])
local SAMPLED_NODES, PART, LEAST_MS = 100, 16, 1000

local function bytes_of(stream)
  return redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', SAMPLED_NODES) or 0
end

local function first_ms_of(stream)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return first and numbers_of(first[1])
end

local outputs, total = {}, 0
for i, stream in ipairs(KEYS) do
  if redis.call('EXISTS', stream) == 1 then
    local needed, _, group = needed_of(stream, '')
    local bytes = bytes_of(stream)
    outputs[#outputs + 1] = {number = i, stream = stream, needed = needed, group = group, bytes = bytes}
    total = total + bytes
  end
end

local now_ms, cut_ms, most = server_ms(), nil, 0
if total > BUDGET then
  for _, output in ipairs(outputs) do
    output.first_ms = first_ms_of(output.stream)
    cut_ms = math.min(cut_ms or now_ms, output.first_ms or now_ms)
  end
end

while total > BUDGET and cut_ms < now_ms and most < AT_MOST / 2 do
  cut_ms = cut_ms + math.max(math.floor((now_ms - cut_ms) / PART), LEAST_MS)
  for _, output in ipairs(outputs) do
    if output.first_ms and output.first_ms < cut_ms then
      local cut = string.format('%.0f-0', cut_ms)
      if output.needed and before(output.needed, cut) then cut = output.needed end
      local trimmed = redis.call('XTRIM', output.stream, 'MINID', '~', cut, 'LIMIT', AT_MOST)
      if trimmed > 0 then
        local bytes = bytes_of(output.stream)
        output.first_ms, total, output.bytes = first_ms_of(output.stream), total - output.bytes + bytes, bytes
        most = math.max(most, trimmed)
      end
    end
  end
end

local held = {number = 0, bytes = 0}
for _, output in ipairs(outputs) do
  local waits, other = output.group ~= nil, held.group ~= nil
  if (waits and not other) or (waits == other and output.bytes > held.bytes) then held = output end
end
return {total > BUDGET and cut_ms < now_ms and 1 or 0, total, held.number, held.bytes, held.group or ''}
