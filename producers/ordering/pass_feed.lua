#!lua
-- pass_feed: move the hurried whose last use ends soonest from their slots into the queue, up to the window.
--
-- Guarantee: moved and counted in one step, so that a lost reply is harmless: the next call goes on.
--
-- KEYS  1 lane   hash  the lane's copy of the broadcast
--       2 queue  list  bucket:openid
-- Found on the way, with the lane's hash tag: soon:ID:SLOT, the rings of its app
-- ARGV  1 broadcast, 2 prefix of the lane, 3 most that are moved (1..4000)
-- Returns  {status, moved, left in the slots}; status 1 did a step, -1 not running, 2 it has no slots,
--       3 the window is full
--@include store/check
--@include ordering/hurried
--@include lanes/ring
local lane, queue, id, prefix = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local most = whole('most', ARGV[3], 1, 4000)
local has = redis.call('HMGET', lane, 'state', 'drop', 'verdict', 'app', 'priority', 'window', 'look',
  'soonest', 'hurried')
local left = num(has[9])
if not has[7] or has[7] == 'rest' then return { 2, 0, 0 } end
if has[1] ~= 'running' or text_of(has[2]) ~= '' or text_of(has[3]) ~= '' then return { -1, 0, left } end
local queued = redis.call('LLEN', queue)
local room = math.min(whole('window', has[6], 0, 2 ^ 42) - queued, most)
if room <= 0 then return { 3, 0, left } end
rings_are_sound(prefix, has[4])

local slot, moved = num(has[8]), 0
while slot < SLOTS do
  local items = redis.pcall('LPOP', soon_of(prefix, id, slot), room - moved)
  if items and not items.err then
    redis.call('RPUSH', queue, unpack(items))
    moved = moved + #items
    if moved >= room then break end
  end
  slot = slot + 1
end
left = slot < SLOTS and math.max(left - moved, 0) or 0
redis.call('HSET', lane, 'soonest', slot, 'hurried', left)
if moved > 0 then
  bump(lane, 'total', moved)
  redis.call('PEXPIRE', queue, 2592000000)
  if join_ring(prefix, has[4], id, has[5]) or queued == 0 then wake(prefix, has[4]) end
end
return { 1, moved, left }
