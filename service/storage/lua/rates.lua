#!lua flags=no-writes
-- Sum the counts of responses over some buckets of one partition.
--
-- KEYS  buckets
-- Returns MessagePack: {fields, sums}: names of fields, and their sums in the same order
--
-- A bucket's fields are <count>:<scope>:<name>, and <count>.provider:<name> for providers. <count> is `responses`,
-- `refused` or `blocked`.

local sums, names, totals = {}, {}, {}
for _, key in ipairs(KEYS) do
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do sums[fields[i]] = (sums[fields[i]] or 0) + tonumber(fields[i + 1]) end
end
for name, sum in pairs(sums) do
  names[#names + 1], totals[#totals + 1] = name, sum
end
return cmsgpack.pack({names, totals})
