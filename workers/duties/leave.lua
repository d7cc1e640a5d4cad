-- leave: this worker is gone, with nothing in its hands.
--
-- Guarantee: `resting` says that nobody is at work from here on. Whoever beats afterwards takes it
-- back; a worker that was killed a moment ago may not have stopped, so it keeps the word from being
-- given for as long as three beats.
--
-- KEYS  1 workers zset  worker -> last beat (ms)
--       2 seen    hash  at_ms, resting (see keys.py)
-- ARGV  1 now_ms or '', 2 worker
-- Returns  1 when nobody is left at work, else 0
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
typed('zset', KEYS[1])
typed('hash', KEYS[2])
local RECENT = 3000
redis.call('ZREM', KEYS[1], ARGV[2])
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')
local resting = (not newest[2] or tonumber(newest[2]) < now - RECENT) and 1 or 0
redis.call('HSET', KEYS[2], 'at_ms', now, 'resting', resting)
return resting
