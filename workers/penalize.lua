-- penalize: WeChat answered with a limit error, or, after one, accepted again.
--
-- Guarantee: everyone is held back at the next reserve; the wait doubles with each further error
-- in a row, from base to max. Errors of sends that had started before the wait count once.
--
-- KEYS  1 limiter hash (see reserve.lua)
-- ARGV  1 unused, 2 now_ms or '', 3 base wait (ms), 4 max wait (ms); base 0: accepted again
-- Returns  {blocked_until_ms, level}
--@include clock
local base, max = tonumber(ARGV[3]), tonumber(ARGV[4])
local has = redis.call('HMGET', KEYS[1], 'blocked_until_ms', 'level')
local blocked, level = tonumber(has[1] or 0), tonumber(has[2] or 0)
if base == 0 then
  if blocked <= now then
    level, blocked = 0, 0
    redis.call('HSET', KEYS[1], 'level', 0, 'blocked_until_ms', 0)
  end
elseif blocked <= now then
  blocked = now + math.min(max, base * 2 ^ math.min(level, 20))
  level = level + 1
  redis.call('HSET', KEYS[1], 'blocked_until_ms', string.format('%d', blocked), 'level', level)
end
redis.call('PEXPIRE', KEYS[1], 172800000)
return { string.format('%d', blocked), level }
