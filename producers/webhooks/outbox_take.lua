#!lua flags=allow-oom
-- outbox_take: the webhook events of one lane that are to be posted now, each under a lease.
--
-- Guarantee: of a broadcast one event is out at a time, the oldest; of an app at most `places`, whoever
-- asks. If the process dies just after it, the leases end and the events come again, the same ones.
--
-- KEYS  1 due  zset  app -> when its events are to be looked at (ms)
-- Found on the way, with the lane's hash tag: what box.lua names, of each app
-- ARGV  1 now_ms or '', 2 prefix of the lane, 3 lease_ms, 4 most (events), then app, places …
-- Returns  {now_ms, then per event: app, event, end of the lease (ms), "attempts why" or '', text}
--@include store/clock
--@include store/check
--@include webhooks/box
local now = clock(ARGV[1])
local due, prefix = KEYS[1], ARGV[2]
local lease, most = whole('lease_ms', ARGV[3], 1, 2 ^ 32), whole('most', ARGV[4], 1, 1000)
typed('zset', due)
if #ARGV % 2 == 1 then refuse('arguments', #ARGV) end
for i = 6, #ARGV, 2 do whole('places', ARGV[i], 1, 1000) end
local until_ms = string.format('%d', now + lease)
local rows = { string.format('%d', now) }

-- Returns the oldest event of a broadcast and its text; one whose text is gone is passed over.
local function next_of(box, id)
  for _ = 1, 10 do
    local event = first_event(box, id)
    if not event then return end
    local text = redis.call('HGET', box.events, event)
    if text then return event, text end
    drop_event(box, event)
  end
end

-- Returns when the app is to be looked at again; nothing when nothing of it waits.
local function take_of(app, box, places)
  redis.call('ZREMRANGEBYSCORE', box.out, '-inf', now)
  local free = places - redis.call('ZCARD', box.out)
  free = math.min(free, most - (#rows - 1) / 5)
  local some = free > 0 and redis.call('ZRANGEBYSCORE', box.due, '-inf', now, 'LIMIT', 0, free) or {}
  for _, id in ipairs(some) do
    local event, text = next_of(box, id)
    if event then
      redis.call('ZADD', box.out, until_ms, id)
      redis.call('ZADD', box.due, until_ms, id)
      for _, one in ipairs({ app, event, until_ms, text_of(redis.call('HGET', box.tries, event)), text }) do
        rows[#rows + 1] = one
      end
    else
      redis.call('ZREM', box.due, id)
    end
  end
  keep_box(box)
  local following = redis.call('ZRANGE', box.due, 0, 0, 'WITHSCORES')[2]
  if redis.call('ZCARD', box.out) >= places then  -- what is due waits for one of these to end
    following = redis.call('ZRANGE', box.out, 0, 0, 'WITHSCORES')[2]
  end
  return following
end

for i = 5, #ARGV, 2 do
  local app, places = ARGV[i], tonumber(ARGV[i + 1])
  local at = redis.call('ZSCORE', due, app)
  if at and tonumber(at) <= now and (#rows - 1) / 5 < most then
    local box = box_of(prefix, app)
    local again = box and take_of(app, box, places)
    if again then
      redis.call('ZADD', due, again, app)
    else
      redis.call('ZREM', due, app)
    end
  end
end
return rows
