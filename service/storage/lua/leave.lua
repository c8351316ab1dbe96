#!lua flags=allow-oom
-- Release the pending entries of a stopping consumer, so that other workers can claim them at once. Remove the
-- consumer if it has none.
--
-- KEYS  1 input stream
-- ARGV  1 consumer group   2 consumer   3 maximum number of entries per call   4 start of the range, as in XPENDING: an
--       id, `(` before an id to exclude it, or `-` for the first pending entry
-- Returns {number of entries released, id of the last one, or ARGV 4 if the number is 0}

local INPUT = KEYS[1]
local GROUP, CONSUMER, AT_MOST, FIRST = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local LONG_MS = 86400000

local released = redis.call('XPENDING', INPUT, GROUP, FIRST, '+', AT_MOST, CONSUMER)
for _, pending in ipairs(released) do
  redis.call('XCLAIM', INPUT, GROUP, CONSUMER, 0, pending[1], 'IDLE', LONG_MS, 'JUSTID')
end
if #released == 0 and FIRST == '-' then redis.call('XGROUP', 'DELCONSUMER', INPUT, GROUP, CONSUMER) end
return {#released, #released > 0 and released[#released][1] or FIRST}
