-- quota_ask: may this worker ask WeChat now, of the quota of one channel or of one refusal?
--
-- Guarantee: over all workers it is asked seldom, and at most so often a day, whatever becomes of the
-- answers; who is told yes is the only one for that time. If it dies, nobody asks before the next time.
--
-- KEYS  1 quotas hash  what was said, and asked:WHAT (ms), asks ("day count")
--       2 limiter hash, see reserve.lua: sent:CHANNEL, quota:CHANNEL
-- ARGV  1 now_ms or '', 2 what: a channel, or an errcode, 3 far_ms between two asks, 4 near_ms where a
--       tenth of the quota is left or less, 5 most asks a day, all together
-- Returns  {1 ask or 0, slots of the channel given so far}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local what, far, near = ARGV[2], whole('far_ms', ARGV[3], 0, 2 ^ 42), whole('near_ms', ARGV[4], 0, 2 ^ 42)
local most = whole('most', ARGV[5], 0, 2 ^ 32)
local has = redis.call('HMGET', KEYS[1], 'asked:' .. what, 'asks', what)
local of_channel = redis.call('HMGET', KEYS[2], 'sent:' .. what, 'quota:' .. what)
local sent, asked = num(of_channel[1]), num(has[1])
local bound = tonumber(string.match(text_of(of_channel[2]), '^(%d+) %d+$'))
local limit = tonumber(string.match(text_of(has[3]), '^(%d+) '))
local pause = bound and limit and (bound - sent) * 10 <= limit and near or far
if asked > 0 and asked <= now and now - asked < pause then return { 0, sent } end
local day, count = string.match(text_of(has[2]), '^(%d+) (%d+)$')
local today = math.floor(now / 86400000)
count = tonumber(day) == today and tonumber(count) or 0
if count >= most then return { 0, sent } end
redis.call('HSET', KEYS[1], 'asked:' .. what, now, 'asks', string.format('%d %d', today, count + 1))
redis.call('PEXPIRE', KEYS[1], 172800000)
return { 1, sent }
