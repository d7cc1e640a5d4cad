#!lua
-- template_end: what came of reading an app's list of templates.
--
-- Guarantee: only who holds the lease of that very call ends it, so that a late one overwrites nothing.
-- What was wanted since it began stays wanted; a failure is remembered, and not tried again before a
-- pause that doubles, up to `most_ms`. If the worker dies just before it, the lease ends.
--
-- KEYS  1 list hash, 2 due zset
-- ARGV  1 now_ms or '', 2 member of due, 3 worker, 4 began_ms, 5 outcome: read, failed, or left (this
--       worker could not ask: another one may, at once), 6 list, as stored (read) or '', 7 trouble, why
--       it failed, or '', 8 again_ms after a first failure, 9 most_ms, 10 ttl_ms
-- Returns  {1 ended or 0 somebody else's, from when on it may be read again (ms)}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local list, due, member, outcome = KEYS[1], KEYS[2], ARGV[2], ARGV[5]
local again, most = whole('again_ms', ARGV[8], 0, 2 ^ 32), whole('most_ms', ARGV[9], 0, 2 ^ 32)
local ttl = whole('ttl_ms', ARGV[10], 1, 2 ^ 42)
if text_of(member) == '' then refuse('member', member) end
if outcome ~= 'read' and outcome ~= 'failed' and outcome ~= 'left' then refuse('outcome', outcome) end
typed('hash', list)
typed('zset', due)
local has = redis.call('HMGET', list, 'worker', 'began_ms', 'next_ms', 'fails', 'wanted_at_ms')
if has[1] ~= ARGV[3] or has[2] ~= ARGV[4] or num(has[2]) == 0 then return { 0, num(has[3]) } end
local next_ms, wanted = num(has[3]), num(has[5]) > num(has[2])
if outcome == 'read' then
  redis.call('HSET', list, 'list', ARGV[6], 'read_at_ms', ARGV[4], 'trouble', '', 'fails', 0)
elseif outcome == 'failed' then
  local fails = math.min(num(has[4]), 20)
  next_ms = math.max(next_ms, now + math.min(again * 2 ^ fails, most))
  redis.call('HSET', list, 'trouble', ARGV[7], 'fails', fails + 1)
else
  next_ms, wanted = now, true
end
redis.call('HSET', list, 'lease_until_ms', 0, 'worker', '', 'next_ms', next_ms, 'tried_at_ms',
  outcome == 'left' and num(redis.call('HGET', list, 'tried_at_ms')) or now)
redis.call('PEXPIRE', list, ttl)
if wanted then
  redis.call('ZADD', due, next_ms, member)
  redis.call('PEXPIRE', due, ttl)
else
  redis.call('ZREM', due, member)
end
return { 1, next_ms }
