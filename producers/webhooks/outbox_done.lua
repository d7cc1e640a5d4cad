#!lua flags=allow-oom
-- outbox_done: what came of posting one webhook event.
--
-- Guarantee: a delivered event leaves, a dead one lies among the dead letters, any other waits and holds
-- back those of its broadcast that came after it. What whoever lost the lease says counts only when the
-- event was delivered: it was. The same call again changes nothing.
--
-- KEYS  1 due  zset  app -> when its events are to be looked at (ms)
-- Found on the way, with the lane's hash tag: what box.lua names, of the app
-- ARGV  1 now_ms or '', 2 prefix of the lane, 3 app, 4 event, 5 lease_end_ms (as outbox_take.lua gave it),
--       6 verdict: delivered, again or dead, 7 delay_ms (again), 8 attempts so far, 9 why it failed
-- Returns  1 when it counted, else 0
--@include store/clock
--@include store/check
--@include webhooks/box
local now = clock(ARGV[1])
local due, app, event, verdict = KEYS[1], ARGV[3], ARGV[4], ARGV[6]
local delay, attempts = whole('delay_ms', ARGV[7], 0, 2 ^ 42), whole('attempts', ARGV[8], 0, 2 ^ 32)
local lease_end = whole('lease_end_ms', ARGV[5], 0, 2 ^ 53)
if not ARGV[9] then refuse('arguments', #ARGV) end
if verdict ~= 'delivered' and verdict ~= 'again' and verdict ~= 'dead' then refuse('verdict', verdict) end
local id = string.match(event, '^(%S+) %d+$') or refuse('event', event)
typed('zset', due)
local box = box_of(ARGV[2], app)
if not box then refuse('the box of', app) end
local is_mine = num(redis.call('ZSCORE', box.out, id)) == lease_end
if not is_mine and verdict ~= 'delivered' then return 0 end
local waits = redis.call('ZSCORE', box.queue, event)
if verdict == 'delivered' then
  drop_event(box, event)
elseif waits then
  redis.call('HSET', box.tries, event, string.format('%d %s', attempts, ARGV[9]))
  if verdict == 'dead' then
    redis.call('ZREM', box.queue, event)
    redis.call('ZADD', box.dead, now, event)
  end
end
if is_mine then
  redis.call('ZREM', box.out, id)
  local at = string.format('%d', now + (verdict == 'again' and delay or 0))
  if first_event(box, id) then
    redis.call('ZADD', box.due, at, id)
  else
    redis.call('ZREM', box.due, id)
  end
  local following = redis.call('ZRANGE', box.due, 0, 0, 'WITHSCORES')[2]
  if following then look_at(due, app, tonumber(following)) end
end
keep_box(box)
return waits and 1 or 0
