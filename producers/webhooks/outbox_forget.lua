#!lua flags=allow-oom
-- outbox_forget: events of one app in one lane are dropped, whether they wait or were given up.
--
-- Guarantee: one that is out is not posted again; run again it finds nothing.
--
-- KEYS  1 due  zset  app -> when its events are to be looked at (ms)
-- Found on the way, with the lane's hash tag: what box.lua names, of the app
-- ARGV  1 prefix of the lane, 2 app, then events
-- Returns  how many there were
--@include store/check
--@include webhooks/box
local app = ARGV[2] or refuse('arguments', #ARGV)
typed('zset', KEYS[1])
local box = box_of(ARGV[1], app)
if not box then refuse('the box of', app) end
local dropped = 0
for i = 3, #ARGV do
  if redis.call('HEXISTS', box.events, ARGV[i]) == 1 then
    drop_event(box, ARGV[i])
    dropped = dropped + 1
  end
end
if dropped > 0 then keep_box(box) end
return dropped
