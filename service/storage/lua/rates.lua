#!lua flags=no-writes
-- Adds up the responses that were counted in some buckets of one partition.
--
-- KEYS  buckets
-- Returns MessagePack {{field, …}, {sum, …}}
--
-- A bucket's fields: responses, refused and blocked:<scope>:<name>; of providers, responses.provider:<name> and so on.

local sums, names, totals = {}, {}, {}
for _, key in ipairs(KEYS) do
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do sums[fields[i]] = (sums[fields[i]] or 0) + tonumber(fields[i + 1]) end
end
for name, sum in pairs(sums) do
  names[#names + 1], totals[#totals + 1] = name, sum
end
return cmsgpack.pack({names, totals})
