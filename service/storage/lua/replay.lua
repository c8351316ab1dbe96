#!lua
-- Add the original fields of a dead letter to the input as a new entry, and delete the letter.
-- The script does nothing without the letter, so a letter is replayed once.
--
-- KEYS  1 dead letters   2 input stream
-- ARGV  1 the letter's id   2… the original fields: name, value, … (at most 8,000 values, the limit of `unpack`)
-- Returns the new entry's id; nil if the letter does not exist

local DEAD_LETTERS, INPUT = KEYS[1], KEYS[2]
local LETTER, FIRST_FIELD = ARGV[1], 2

if #redis.call('XRANGE', DEAD_LETTERS, LETTER, LETTER) == 0 then return nil end
must_be_a('stream', INPUT)
must_be_allowed('XADD', INPUT, '*', '', '')
must_be_allowed('XDEL', DEAD_LETTERS, LETTER)
local entry = redis.call('XADD', INPUT, '*', unpack(ARGV, FIRST_FIELD))
redis.call('XDEL', DEAD_LETTERS, LETTER)
return entry
