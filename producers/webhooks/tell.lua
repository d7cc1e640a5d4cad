-- tell: a webhook event is stored by the very script that changes what it tells of.
--   hooks      hash  app -> "MOST BYTES TYPE …": what is kept, and how much of it; none: nothing
--   hooks:due  zset  app -> when its events are to be looked at (ms)
-- So none is lost and none is invented: where the change is made there is the event. Where there is no
-- room the oldest dead letters make it; where there are none, the event is dropped and counted.
--
-- A teller is an app's events in one lane, for one run of a script: it looks at the keys once.
--@include store/check
--@include webhooks/box
local MAKES_ROOM = 100  -- dead letters that one event may push out

-- Returns a teller. now: the time (ms).
local function teller_of(prefix, app, now)
  local wanted = app and redis.pcall('HGET', prefix .. 'hooks', app)
  local most, room, kinds = string.match(text_of(wanted), '^(%d+) (%d+) (.*)$')
  return { prefix = prefix, app = app, now = now, most = num(most), room = num(room),
    kinds = kinds and ' ' .. kinds .. ' ' or '' }
end

-- Whether an app wants events of this type.
local function is_told(teller, kind) return string.find(teller.kinds, ' ' .. kind .. ' ', 1, true) end

-- Whether its keys are what they should be: looked at once.
local function is_open(teller)
  if teller.box == nil then
    local box = box_of(teller.prefix, teller.app)
    teller.box = box or false
    if box then
      local has = redis.call('HMGET', box.kept, 'bytes', 'last')
      teller.bytes, teller.last = num(has[1]), num(has[2])
      teller.kept = redis.call('HLEN', box.events)
    end
  end
  return teller.box
end

-- Whether there is room for so many bytes, made where dead letters lie.
local function has_room(teller, bytes)
  for _ = 1, MAKES_ROOM do
    if teller.kept < teller.most and teller.bytes + bytes <= teller.room then return true end
    local oldest = redis.call('ZRANGE', teller.box.dead, 0, 0)[1]
    if not oldest then return false end
    teller.bytes = teller.bytes - redis.call('HSTRLEN', teller.box.events, oldest)
    teller.kept = teller.kept - 1
    drop_event(teller.box, oldest)
  end
  return false
end

-- Stores an event, if its type is told. id: what it tells of, whose events keep their order.
local function tell(teller, id, kind, details)
  if not is_told(teller, kind) or not is_open(teller) then return end
  local box, text = teller.box, string.format('%s %d\n%s', kind, teller.now, details)
  if has_room(teller, #text) then
    teller.last = math.max(teller.now, teller.last + 1)
    teller.bytes, teller.kept = teller.bytes + #text, teller.kept + 1
    local event = string.format('%s %016d', id, teller.last)
    redis.call('HSET', box.events, event, text)
    redis.call('ZADD', box.queue, 0, event)
    redis.call('ZADD', box.due, 'NX', string.format('%d', teller.now), id)
    redis.call('HSET', box.kept, 'last', string.format('%d', teller.last), 'bytes',
      string.format('%d', teller.bytes))
  else
    bump(box.kept, 'dropped', 1)
  end
  if not teller.lasts then
    teller.lasts = true
    keep_box(box)
    look_at(teller.prefix .. 'hooks:due', teller.app, teller.now)
  end
end
