#!lua flags=allow-oom
-- series_move: pause, resume or delete a series.
--
-- Guarantee: a paused one has no tick; run again it changes nothing.
--
-- KEYS  1 series hash, 2 names set, 3 due zset
-- ARGV  1 move: pause, resume or delete, 2 name, 3 member of due, 4 next_ms, its next tick (resume),
--       5 reason or ''
-- Returns  state before, or '' when there is no such series
--@include store/check
local series, names, due = KEYS[1], KEYS[2], KEYS[3]
local move, name, member = ARGV[1], ARGV[2], ARGV[3]
if move ~= 'pause' and move ~= 'resume' and move ~= 'delete' then refuse('move', move) end
local next_ms = whole('next_ms', ARGV[4], 0, 2 ^ 42)
local reason = ARGV[5] or refuse('arguments', #ARGV)
typed('set', names)
typed('zset', due)
local state = redis.call('HGET', series, 'state')
if not state then return '' end
if move == 'delete' then
  redis.call('UNLINK', series)
  redis.call('SREM', names, name)
  redis.call('ZREM', due, member)
elseif move == 'pause' then
  redis.call('HSET', series, 'state', 'paused', 'note', reason)
  redis.call('ZREM', due, member)
elseif state ~= 'active' then
  redis.call('HSET', series, 'state', 'active', 'next_ms', next_ms, 'note', reason)
  redis.call('ZADD', due, next_ms, member)
end
return state
