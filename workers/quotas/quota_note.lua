-- quota_note: keep what WeChat said of a channel's quota, for people and for the limiter.
--
-- Guarantee: the limiter counts from here on: what is left is what remained when it was asked, less all
-- slots of the channel that were given since. A later answer goes before an earlier one.
--
-- KEYS  1 quotas hash, 2 limiter hash (see reserve.lua)
-- ARGV  1 now_ms or '', 2 channel, 3 limit a day, 4 used, 5 remain, 6 per and 7 per_s: calls in so many
--       seconds (0 0: unknown), 8 sent: slots of the channel given when it was asked, 9 until_ms: when the
--       day ends
-- Returns  {1}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local channel, limit, used, remain = ARGV[2], whole('limit', ARGV[3], 1, 2 ^ 53),
  whole('used', ARGV[4], 0, 2 ^ 53), whole('remain', ARGV[5], 0, 2 ^ 52)
local per, per_s = whole('per', ARGV[6], 0, 2 ^ 53), whole('per_s', ARGV[7], 0, 2 ^ 32)
local sent, until_ms = whole('sent', ARGV[8], 0, 2 ^ 52), whole('until_ms', ARGV[9], 0, 2 ^ 53)
typed('hash', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], channel,
  string.format('%d %d %d %d %d %d', limit, used, remain, per, per_s, now))
redis.call('HDEL', KEYS[1], 'error:' .. channel)
redis.call('PEXPIRE', KEYS[1], 172800000)
redis.call('HSET', KEYS[2], 'quota:' .. channel, string.format('%d %d', sent + remain, until_ms))
if redis.call('PTTL', KEYS[2]) == -1 and redis.call('HEXISTS', KEYS[2], 'rate') == 0 then
  redis.call('PEXPIRE', KEYS[2], 172800000)
end
return { 1 }
