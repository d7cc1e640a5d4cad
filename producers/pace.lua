-- pace: note how far a broadcast is in one lane, for its rate. Once a second, while it runs.
--
-- Guarantee: it changes no count. Two notes at once only make the samples closer.
--
-- KEYS  1 lane hash, 2 pace list: "at_ms settled answered", the newest right; one minute
-- ARGV  1 unused, 2 now_ms or ''
-- Returns  how many notes there are
--@include clock
local KEPT = 8  -- a rate is that of the last seconds, so that a pause shows
local has = redis.call('HMGET', KEYS[1], 'done', 'o:no_permit', 'o:cancelled', 'o:late')
local done = tonumber(has[1] or 0)
local answered = done - tonumber(has[2] or 0) - tonumber(has[3] or 0) - tonumber(has[4] or 0)
redis.call('RPUSH', KEYS[2], string.format('%d %d %d', now, done, answered))
redis.call('LTRIM', KEYS[2], -KEPT, -1)
redis.call('PEXPIRE', KEYS[2], 60000)
return redis.call('LLEN', KEYS[2])
