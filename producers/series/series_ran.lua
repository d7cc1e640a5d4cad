#!lua flags=allow-oom
-- series_ran: a tick of a series is done with: it waits for its next one.
--
-- Guarantee: only whoever did the tick that is due moves it on, so it can be repeated.
--
-- KEYS  1 series hash, 2 due zset
-- ARGV  1 member of due, 2 tick_ms, the one that was due, 3 next_ms, 4 broadcast that it made or '',
--       5 note: why it made none, or ''
-- Returns  1 moved on, 0 the tick was another one, or the series is not there or paused
--@include store/check
local tick, next_ms = whole('tick_ms', ARGV[2], 0, 2 ^ 42), whole('next_ms', ARGV[3], 0, 2 ^ 42)
if #ARGV ~= 5 then refuse('arguments', #ARGV) end
typed('zset', KEYS[2])
local has = redis.call('HMGET', KEYS[1], 'state', 'next_ms')
if has[1] ~= 'active' or tonumber(has[2] or '') ~= tick then return 0 end
redis.call('HSET', KEYS[1], 'next_ms', next_ms, 'last_ms', tick, 'note', ARGV[5])
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'last_broadcast', ARGV[4]) end
redis.call('ZADD', KEYS[2], next_ms, ARGV[1])
return 1
