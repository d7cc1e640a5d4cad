-- penalize: WeChat answered with a limit error, or, after one, accepted again.
--
-- Guarantee: everyone is held back at the next reserve; the wait doubles with each further error
-- in a row, from base to max. Errors of sends that had started before the wait count once.
--
-- KEYS  1 limiter hash (see reserve.lua)
-- ARGV  1 now_ms or '', 2 base_ms to wait, 3 most_ms; base_ms 0: accepted again
-- Returns  {blocked_until_ms, level}
--@include store/clock
local now = clock(ARGV[1])
local base, max = tonumber(ARGV[2]), tonumber(ARGV[3])
local has = redis.call('HMGET', KEYS[1], 'blocked_until_ms', 'level', 'blocked_at_ms')
local blocked, level = tonumber(has[1] or 0), tonumber(has[2] or 0)
if tonumber(has[3] or 0) > now then blocked = 0 end  -- the clock was set back
if base == 0 then
  if blocked <= now then
    level, blocked = 0, 0
    redis.call('HSET', KEYS[1], 'level', 0, 'blocked_until_ms', 0)
  end
elseif blocked <= now then
  blocked = now + math.min(max, base * 2 ^ math.min(level, 20))
  level = level + 1
  redis.call('HSET', KEYS[1], 'blocked_until_ms', string.format('%d', blocked), 'level', level,
    'blocked_at_ms', now)
end
-- a rate that was set live stays until it is taken back
if redis.call('HEXISTS', KEYS[1], 'rate') == 1 then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], 172800000) end
return { string.format('%d', blocked), level }
