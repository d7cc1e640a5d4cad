-- split: move whole buckets of an audience into a broadcast's queue, up to the window.
--
-- Guarantee: each bucket is read whole and once, and the cursor moves in the same step, so no
-- recipient comes twice and none is left out, whatever changes meanwhile. A lost reply is
-- harmless: the cursor has moved, and the next call with the old one is told so. A broadcast that
-- was cancelled or is late only counts what is left. However large the window and however many buckets
-- an expression finds nobody in, no further one is begun after LOOKED_AT members.
-- Of an ordered broadcast (hurried.lua) the buckets come after all passes, and without whoever went
-- first.
--
-- KEYS  1 lane    hash  the lane's copy of the broadcast
--       2 queue   list  bucket:openid
--       (found by KEYS 1: recipients:ID, bitmap, the buckets that had members; the rings of its app;
--       the audience's sets, see bucket.lua)
-- ARGV  1 broadcast, 2 cursor that is expected (next bucket, after an r when it lies in rows, or as
--       'ordered BUCKET': an earlier version cannot read these), 3 last: 1 when these are the last
--       buckets, 4 prefix of the lane, then the audience's buckets, ascending from the cursor on
-- Returns  {status, cursor, pushed or counted, queue length}; status 1 did a step, 0 the cursor
--       is elsewhere, -1 not running, 2 all split, 3 the window is full, 4 a pass
--       comes first
--@include store/check
--@include audiences/bucket
--@include lanes/ring
--@include lanes/need
--@include ordering/hurried
local lane, queue = KEYS[1], KEYS[2]
local recipients = string.gsub(lane, ':lane:', ':recipients:', 1)
local id, expected, last, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local has = redis.call('HMGET', lane, 'state', 'drop', 'cursor', 'split', 'window', 'verdict',
  'app', 'priority', 'audience', 'look')
local cursor, drop = has[3], has[2]
local queued = redis.call('LLEN', queue)
typed('string', recipients)
local carries = has[4] == 'mail' and (not drop or drop == '')  -- filled by post.lua
if has[4] == 'done' or carries then return { 2, cursor, 0, queued } end
if cursor ~= expected then return { 0, cursor, 0, queued } end
local counting = drop and drop ~= ''
if not counting and (has[1] ~= 'running' or has[6] and has[6] ~= '') then
  return { -1, cursor, 0, queued }
end
local look = has[10]  -- of an ordered broadcast alone
if look and look ~= 'rest' and not counting then return { 4, cursor, 0, queued } end
rings_are_sound(prefix, has[7])
local whose = { prefix = prefix, app = has[7], audience = has[9] }
tree_of(whose)
for arg = 5, #ARGV do
  bucket_is_sound(whose, ARGV[arg])
  if look then typed('hash', hurried_of(prefix, id, ARGV[arg])) end
end
local room = whole('window', has[5], 0, 2 ^ 42) - queued
if not counting and room <= 0 then return { 3, cursor, 0, queued } end

local LOOKED_AT = 2500  -- members read and looked up, after which no further bucket is begun
local moved, reached = 0, 4
if look and look ~= 'rest' then  -- what waits in the slots was counted nowhere yet
  local soon = {}
  for slot = 0, SLOTS - 1 do
    soon[slot + 1] = soon_of(prefix, id, slot)
    local waiting = redis.pcall('LLEN', soon[slot + 1])
    moved = moved + (tonumber(waiting) or 0)
  end
  redis.call('UNLINK', unpack(soon))
  redis.call('HSET', lane, 'look', 'rest', 'hurried', 0)
end

-- The members of a bucket that did not go first; they are remembered no longer.
local function others_of(bucket)
  local openids = members_of(whose, bucket)
  whose.looked = whose.looked + #openids
  openids = without_hurried(prefix, id, bucket, openids)
  redis.call('UNLINK', hurried_of(prefix, id, bucket))
  return openids
end

for arg = 5, #ARGV do
  local bucket = ARGV[arg]
  if counting then
    moved = moved + (look and #others_of(bucket) or size_of(whose, bucket))
  else
    local openids = look and others_of(bucket) or members_of(whose, bucket)
    local members = #openids
    for i = 1, members do openids[i] = bucket .. ':' .. openids[i] end
    for from = 1, members, 5000 do
      redis.call('RPUSH', queue, unpack(openids, from, math.min(from + 4999, members)))
    end
    if members > 0 then redis.call('SETBIT', recipients, bucket, 1) end
    moved = moved + members
  end
  cursor = bucket + 1
  if rows_of(whose) then cursor = string.format('r%d', cursor) end
  reached = arg
  if not counting and moved >= room or whose.looked >= LOOKED_AT then break end
end
if look then cursor = 'ordered ' .. string.match(cursor, '%d+$') end
bump(lane, 'total', moved)
if reached == #ARGV and last == '1' then
  redis.call('HSET', lane, 'split', 'done')
  need(prefix, id, 0)
end
redis.call('HSET', lane, 'cursor', cursor)
if counting then
  if moved > 0 then
    bump(lane, 'o:' .. drop, moved)
    bump(lane, 'done', moved)
  end
elseif moved > 0 then
  redis.call('PEXPIRE', queue, 2592000000)
  -- a week longer than this copy, for its first outcome may be written at the end of its life
  redis.call('PEXPIRE', recipients, math.max(redis.call('PTTL', lane), 0) + 604800000)
  if join_ring(prefix, has[7], id, has[8]) or queued == 0 then wake(prefix, has[7]) end
end
return { 1, cursor, moved, queued + moved }
