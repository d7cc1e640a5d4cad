-- jot: keep one line of text, with its time, about an app: why WeChat's answer is lacking, or what it said.
--
-- KEYS  1 hash
-- ARGV  1 now_ms or '', 2 field, 3 text, 4 ttl_ms of the hash
-- Returns  {1}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local ttl = whole('ttl_ms', ARGV[4], 1, 2 ^ 42)
typed('hash', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[2], string.format('%d %s', now, ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ttl)
return { 1 }
