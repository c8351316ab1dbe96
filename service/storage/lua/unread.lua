#!lua flags=no-writes
-- Look whether an entry follows an id, without sending it to the caller: it may be large.
--
-- KEYS  1 stream
-- ARGV  1 the id
-- Returns 1 if one follows, else 0

return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1)
