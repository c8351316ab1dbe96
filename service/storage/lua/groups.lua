#!lua flags=no-writes
-- Look at the consumer groups of several input streams.
--
-- KEYS  input streams
-- ARGV  1 consumer group
-- Returns for each stream {number of pending entries of the group, positions}; nil if the stream has no such group or
--         is none. Positions are a text with name, number of pending entries and last delivered entry of each group.

local GROUP = ARGV[1]

local found = {}
for k, stream in ipairs(KEYS) do
  local groups, positions, pending = redis.pcall('XINFO', 'GROUPS', stream), {}, nil
  for g, info in ipairs(groups) do
    local name, entries, last_delivered = info[2], info[6], info[8]
    if name == GROUP then pending = entries end
    positions[g] = name .. ' ' .. entries .. ' ' .. last_delivered
  end
  found[k] = pending and {pending, table.concat(positions, '\n')} or false
end
return found
