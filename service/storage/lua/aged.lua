#!lua flags=no-writes
-- Find the entries of one kind that are older than an age, on one page of an output stream. The oldest entry that a
-- relay has yet to deliver, and all entries after it, count as old only beyond the longest age; those that one more
-- group has yet to acknowledge do not count as old at all.
--
-- KEYS  1 stream
-- ARGV  1 kind   2 id of the entry after which the page begins   3 age in ms   4 number of entries on the page
--       5 prefix of the relays' group names   6 longest age in ms: entries beyond it are not kept for relays
--       7 name of a group for which all entries are kept until it has acknowledged them, '' for none
-- Returns {id of the last entry on the page, or '' if the page is empty, number of entries on the page,
--          {id, response_id or '', item_id or '', __data__}, … for each entry of the kind}

local STREAM, KIND, AFTER = KEYS[1], ARGV[1], ARGV[2]
local AGE_MS, AT_MOST, RELAYS, LONGEST_MS = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local GROUP = ARGV[7]

if redis.call('EXISTS', STREAM) == 0 then return {'', 0} end

-- `last` is the end of the XRANGE below; `(` excludes the entry itself.
local old = id_of_age(AGE_MS)
local last = '(' .. old
local needed, is_pending = needed_of(STREAM, RELAYS)
if needed and before(needed, old) then
  old, last = needed, (is_pending and '(' or '') .. needed
end
local longest = id_of_age(math.max(AGE_MS, LONGEST_MS))
if before(old, longest) then last = '(' .. longest end

if GROUP ~= '' then
  local kept, kept_is_pending = needed_of(STREAM, GROUP, true)
  if not kept then return {'', 0} end
  if before(kept, string.match(last, '[^(]+')) then last = (kept_is_pending and '(' or '') .. kept end
end

local looked_at, count, found = '', 0, {}
for _, entry in ipairs(redis.call('XRANGE', STREAM, '(' .. AFTER, last, 'COUNT', AT_MOST)) do
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  if fields.kind == KIND then
    found[#found + 1] = {entry[1], fields.response_id or '', fields.item_id or '', fields.__data__ or ''}
  end
  looked_at, count = entry[1], count + 1
end
return {looked_at, count, unpack(found)}
