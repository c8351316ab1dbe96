#!lua flags=no-writes
-- Find the commands that the user may not run.
--
-- KEYS  1 a key that the user may access
-- ARGV  commands with all their arguments, as in 'HGET {key} f'. A command that lacks one may crash the server, which
--       looks for its keys without counting them.
-- Returns the numbers of the refused commands, from 1. Commands that the server does not know do not count.

local KEY = KEYS[1]

local refused = {}
for n, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%S+') do words[#words + 1] = word == '{key}' and KEY or word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then refused[#refused + 1] = n end
end
return refused
