-- tell: a webhook event is stored by the very script that changes what it tells of.
--   hooks      hash  app -> "MOST BYTES TYPE …": what is kept, and how much of it; none: nothing
--   hooks:due  zset  app -> when its events are to be looked at (ms)
-- So none is lost and none is invented: where the change is made there is the event. Where there is no
-- room the oldest dead letters make it; where there are none, the event is dropped and counted.
-- now: the time (ms).
--@include store/check
--@include webhooks/box
local MAKES_ROOM = 100  -- dead letters that one event may push out

-- Returns whether somebody wants events of this type.
local function is_told(prefix, app, kind)
  local wanted = app and redis.pcall('HGET', prefix .. 'hooks', app)
  if type(wanted) ~= 'string' then return end
  local most, room, kinds = string.match(wanted, '^(%d+) (%d+) (.*)$')
  if not kinds or not string.find(' ' .. kinds .. ' ', ' ' .. kind .. ' ', 1, true) then return end
  return num(most), num(room)
end

local function tell(prefix, app, id, kind, details, now)
  local most, room = is_told(prefix, app, kind)
  local box = most and box_of(prefix, app)
  if not box then return end
  local text = string.format('%s %d\n%s', kind, now, details)
  local has = redis.call('HMGET', box.kept, 'bytes', 'last')
  local bytes = num(has[1])
  for tried = 0, MAKES_ROOM do
    if redis.call('HLEN', box.events) < most and bytes + #text <= room then break end
    local oldest = tried < MAKES_ROOM and redis.call('ZRANGE', box.dead, 0, 0)[1]
    if not oldest then
      bump(box.kept, 'dropped', 1)
      return keep_box(box)
    end
    bytes = bytes - redis.call('HSTRLEN', box.events, oldest)
    drop_event(box, oldest)
  end
  local number = string.format('%d', math.max(now, num(has[2]) + 1))
  local event = string.format('%s %016d', id, number)
  redis.call('HSET', box.events, event, text)
  redis.call('ZADD', box.queue, 0, event)
  redis.call('ZADD', box.due, 'NX', string.format('%d', now), id)
  redis.call('HSET', box.kept, 'last', number)
  bump(box.kept, 'bytes', #text)
  keep_box(box)
  look_at(prefix .. 'hooks:due', app, now)
end
