#!lua
-- template_begin: one worker is to read an app's list of templates, if it is wanted and time for it.
--
-- Guarantee: one call at a time over all workers, by a lease; no two begin closer than `pause_ms`, and
-- after `quick` of them in a day (UTC) no closer than `slow_ms`: so many a day at the most, whoever
-- wants it how often. If the worker dies just after it, the lease ends, and another one begins.
--
-- KEYS  1 list hash, 2 due zset
-- ARGV  1 now_ms or '', 2 member of due, 3 worker, 4 lease_ms, 5 pause_ms, 6 quick, 7 slow_ms, 8 ttl_ms
-- Returns  {1 begin or 0, now_ms}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local list, due, member, worker = KEYS[1], KEYS[2], ARGV[2], ARGV[3]
local lease, pause = whole('lease_ms', ARGV[4], 1, 2 ^ 32), whole('pause_ms', ARGV[5], 0, 2 ^ 32)
local quick, slow = whole('quick', ARGV[6], 0, 2 ^ 32), whole('slow_ms', ARGV[7], 0, 2 ^ 32)
local ttl = whole('ttl_ms', ARGV[8], 1, 2 ^ 42)
if text_of(member) == '' or text_of(worker) == '' then refuse('member or worker', member) end
typed('hash', list)
typed('zset', due)
local at = redis.call('ZSCORE', due, member)
if not at or num(at) > now then return { 0, now } end
local has = redis.call('HMGET', list, 'lease_until_ms', 'next_ms', 'day', 'calls')
-- further ahead than they are ever set: the clock was set back
local held = math.min(num(has[1]), now + lease)
local next_ms = math.min(num(has[2]), now + 86400000)
if held > now or next_ms > now then
  redis.call('ZADD', due, math.max(held, next_ms), member)
  return { 0, now }
end
local day = string.format('%d', math.floor(now / 86400000))
local calls = (has[3] == day and num(has[4]) or 0) + 1
redis.call('HSET', list, 'lease_until_ms', now + lease, 'worker', worker, 'began_ms', now,
  'next_ms', now + (calls > quick and slow or pause), 'day', day, 'calls', calls)
redis.call('PEXPIRE', list, ttl)
redis.call('ZADD', due, now + lease, member)
redis.call('PEXPIRE', due, ttl)
return { 1, now }
