#!lua
-- template_want: somebody wants an app's list of templates read anew; a worker finds it in `due`.
--
-- Guarantee: what is wanted stays in `due`, no sooner than WeChat may be asked again, until a call that
-- began later has an end (template_end.lua). Wanted again, the list is not wanted more.
--
-- KEYS  1 list hash, 2 due zset (member -> from when on it may be read, ms)
-- ARGV  1 now_ms or '', 2 member of due, 3 ttl_ms, 4 stale_ms: what nobody read for so long is given up
-- Returns  {now_ms, from when on it may be read (ms)}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local list, due = KEYS[1], KEYS[2]
local ttl, stale = whole('ttl_ms', ARGV[3], 1, 2 ^ 42), whole('stale_ms', ARGV[4], 1, 2 ^ 42)
if text_of(ARGV[2]) == '' then refuse('member', ARGV[2]) end
typed('hash', list)
typed('zset', due)
local next_ms = math.max(now, math.min(num(redis.call('HGET', list, 'next_ms')), now + stale))
redis.call('HSET', list, 'wanted_at_ms', now)
redis.call('PEXPIRE', list, ttl)
redis.call('ZREMRANGEBYSCORE', due, '-inf', now - stale)
local before = num(redis.call('ZSCORE', due, ARGV[2]))
if before == 0 or before > next_ms then redis.call('ZADD', due, next_ms, ARGV[2]) end
redis.call('PEXPIRE', due, ttl)
redis.call('PUBLISH', 'wxb:wake', 'templates ' .. ARGV[2])
return { now, next_ms }
