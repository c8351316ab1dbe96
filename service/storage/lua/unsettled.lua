#!lua flags=no-writes
-- Find the partitions with open or waiting responses. One EXISTS covers all partitions that had none at the last look.
--
-- KEYS  `open` and `waiting` of each partition, in turn
-- ARGV  1 number of partitions, the first ones, to look at together
-- Returns {the server's time in ms, number of keys of the first partitions, number of keys of each other partition}

local TOGETHER = 2 * tonumber(ARGV[1])

local first, counts = {}, {server_ms(), 0}
for k = 1, TOGETHER do first[k] = KEYS[k] end
in_slices(first, function(...) counts[2] = counts[2] + redis.call('EXISTS', ...) end)
for k = TOGETHER + 1, #KEYS, 2 do counts[#counts + 1] = redis.call('EXISTS', KEYS[k], KEYS[k + 1]) end
return counts
