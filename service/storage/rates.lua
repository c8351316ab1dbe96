#!lua flags=no-writes
-- Adds up the responses that were counted in one partition, in one step, so that window and baseline fit together.
--
-- KEYS  buckets: first the narrow ones, then the wide ones
-- ARGV  1 how many are narrow
-- Returns MessagePack {{field, …}, {sum, …}, {field, …}, {sum, …}}: of the narrow ones, and of the wide ones
--
-- A bucket's fields: responses, refused and blocked:<scope>:<name>; of providers, responses.provider:<name> and so on.

local NARROW = tonumber(ARGV[1])

local function sums(first, last)
  local found, names, totals = {}, {}, {}
  for k = first, last do
    local fields = redis.call('HGETALL', KEYS[k])
    for i = 1, #fields, 2 do found[fields[i]] = (found[fields[i]] or 0) + tonumber(fields[i + 1]) end
  end
  for name, total in pairs(found) do
    names[#names + 1], totals[#totals + 1] = name, total
  end
  return names, totals
end

local names, totals = sums(1, NARROW)
local other_names, other_totals = sums(NARROW + 1, #KEYS)
return cmsgpack.pack({names, totals, other_names, other_totals})
