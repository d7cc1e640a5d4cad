#!lua
-- outbox_replay: dead letters of one app in one lane wait to be posted again.
--
-- Guarantee: each keeps its id and its place among what waits of its broadcast; one that is no dead
-- letter (any more) stays as it is, so that the same call again changes nothing.
--
-- KEYS  1 due  zset  app -> when its events are to be looked at (ms)
-- Found on the way, with the lane's hash tag: what box.lua names, of the app
-- ARGV  1 now_ms or '', 2 prefix of the lane, 3 app, then events
-- Returns  how many there were
--@include store/clock
--@include store/check
--@include webhooks/box
local now = clock(ARGV[1])
local due, app = KEYS[1], ARGV[3]
typed('zset', due)
if not app then refuse('arguments', #ARGV) end
local box = box_of(ARGV[2], app)
if not box then refuse('the box of', app) end
local replayed = 0
for i = 4, #ARGV do
  local id = string.match(ARGV[i], '^(%S+) %d+$')
  if id and redis.call('ZREM', box.dead, ARGV[i]) == 1 then
    redis.call('HDEL', box.tries, ARGV[i])
    redis.call('ZADD', box.queue, 0, ARGV[i])
    redis.call('ZADD', box.due, 'NX', string.format('%d', now), id)
    replayed = replayed + 1
  end
end
keep_box(box)
if replayed > 0 then look_at(due, app, now) end
return replayed
