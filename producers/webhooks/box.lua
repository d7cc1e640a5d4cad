-- box: the webhook events of one app in one lane: those that wait, and the dead letters.
--   due     zset  broadcast -> when its oldest event is to be posted (ms)
--   queue   zset  "BROADCAST NUMBER", all of score 0: by their names the events of a broadcast stand in
--                 their order, and each app's oldest one is found at once
--   events  hash  "BROADCAST NUMBER" -> "TYPE at_ms", a line feed, and what else is told
--   tries   hash  "BROADCAST NUMBER" -> "attempts why", of those that failed
--   dead    zset  "BROADCAST NUMBER" -> when it was given up (ms)
--   out     zset  broadcast -> end of the lease of who posts its event (ms)
--   kept    hash  bytes, last (number given), dropped
--@include store/check
local BOX_TTL = 30 * 86400000
local BOX = { due = 'zset', queue = 'zset', events = 'hash', tries = 'hash', dead = 'zset', out = 'zset',
  kept = 'hash' }

-- Returns the names of an app's keys; nothing when one of them holds something else.
local function box_of(prefix, app)
  local box = {}
  for name, kind in pairs(BOX) do
    box[name] = prefix .. 'hooks:' .. name .. ':' .. app
    if not is_a(kind, box[name]) then return end
  end
  return box
end

-- All of it ends together, so long after it was used last.
local function keep_box(box)
  for _, key in pairs(box) do redis.call('PEXPIRE', key, BOX_TTL) end
end

-- An event is gone for good: it was delivered, or there is no room for it.
local function drop_event(box, event)
  bump(box.kept, 'bytes', -redis.call('HSTRLEN', box.events, event))
  redis.call('HDEL', box.events, event)
  redis.call('HDEL', box.tries, event)
  redis.call('ZREM', box.queue, event)
  redis.call('ZREM', box.dead, event)
end

-- Returns the event of a broadcast that is to be posted next, if any.
local function first_event(box, id)
  return redis.call('ZRANGEBYLEX', box.queue, '[' .. id .. ' ', '(' .. id .. '!', 'LIMIT', 0, 1)[1]
end

-- An app's events are to be looked at, from then on at the latest.
local function look_at(due, app, at)
  redis.pcall('ZADD', due, 'LT', string.format('%d', at), app)
  redis.call('PEXPIRE', due, BOX_TTL)
end
