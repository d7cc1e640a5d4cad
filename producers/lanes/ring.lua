-- ring: a broadcast that may be taken from stands in its app's ring, once, and its app is busy here.
--   ring, first  list  ids in turn, of ordinary broadcasts and of priority ones
--   busy         set   apps with something in a ring of this lane; a take that leaves both empty
--                      removes its app
-- Whoever puts a message into a queue, frees a place of the canary, or lets a broadcast run again,
-- joins the ring in the same script, so that what may be taken is always found by `busy` alone; the
-- wake-up only makes it sooner.
--@include store/check

-- Whether a broadcast can join; of a lane whose copy names no app none can.
local function rings_are_sound(prefix, app)
  if not app or not string.match(prefix, '{(%d+)}') then refuse('no lane or app', prefix) end
  typed('set', prefix .. 'busy')
  typed('list', prefix .. 'ring:' .. app, prefix .. 'first:' .. app)
end

-- Returns whether it did not stand in the ring before. priority: '1' or 1 for a priority one.
local function join_ring(prefix, app, id, priority)
  local ring = prefix .. (tostring(priority) == '1' and 'first:' or 'ring:') .. app
  redis.pcall('SADD', prefix .. 'busy', app)
  if redis.pcall('LPOS', ring, id) then return false end
  redis.call('RPUSH', ring, id)
  return true
end

-- Tells every worker that there is something to take of this app in this lane.
local function wake(prefix, app)
  redis.call('PUBLISH', 'wxb:wake', 'wake ' .. string.match(prefix, '{(%d+)}') .. ' ' .. app)
end
