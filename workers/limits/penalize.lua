-- penalize: WeChat answered with a limit error, or, after one, accepted again.
--
-- Guarantee: everyone is held back at the next reserve; the wait doubles with each further error
-- in a row, from base to max. Errors of sends that had started before the wait count once.
-- An error that tells of the pace (span_ms) lowers the app's limit too, and the limit climbs back by
-- itself (climb.lua): by a sixth, and without a wait (a second's limit), where the climb met WeChat's own
-- limit again; to a half, or to what a minute was seen to hold, where it lies far off. Errors of sends
-- whose slots were given before that lower nothing more.
--
-- KEYS  1 limiter hash (see reserve.lua)
-- ARGV  1 now_ms or '', 2 base_ms to wait, 3 most_ms; base_ms 0: accepted again, 4 span_ms of the climb;
--       0: the error says nothing of the pace, 5 minute: 1 when what is used up is a minute, 6 took_ms
--       from the send's start to its answer, 7 rate of the settings per 1000 s (0 unlimited)
-- Returns  {blocked_until_ms, level, before, after}: sends per 1000 s before and after, 0 and 0 when
--       the limit was left as it is (before 0, after more: there was none)
--@include store/clock
--@include store/check
--@include lanes/climb
local now = clock(ARGV[1])
local base, max = whole('base_ms', ARGV[2], 0, 2 ^ 32), whole('most_ms', ARGV[3], 0, 2 ^ 32)
local span, minute = whole('span_ms', ARGV[4], 0, 2 ^ 32), ARGV[5] == '1'
local started = now - whole('took_ms', ARGV[6], 0, 2 ^ 42)
local has = redis.call('HMGET', KEYS[1], 'blocked_until_ms', 'level', 'blocked_at_ms', 'limit', 'rate',
  'sent', 'marks')
local rate = num(has[5] or whole('rate', ARGV[7], 0, 2 ^ 40))
local blocked, level = num(has[1]), num(has[2])
local AHEAD = 450   -- a slot lies at most so far ahead (ms): its send starts that late after it was given
local LEAST = 1000  -- sends per 1000 s: below one a second nothing is learned
if num(has[3]) > now then blocked = 0 end  -- the clock was set back

-- Sends per 1000 s of the last minute, or of as long as is known; nil when nothing is.
local function paced()
  local sent, from, then_sent = num(has[6]), nil, nil
  for at, count in string.gmatch(has[7] or '', '(%d+) (%d+)') do
    at = tonumber(at) * 1000
    if at <= now and now - at <= 65000 then from, then_sent = at, tonumber(count) end  -- the oldest comes last
  end
  if from and now - from >= 1000 and sent >= then_sent then
    return (sent - then_sent) * 1000000 / (now - from), sent - then_sent
  end
end

local before, after = 0, 0
local limit, was = climbed(has[4], now)
-- given before the limit was lowered: it says nothing new
local stale = was and started < math.min(was.lowered, now) + AHEAD
if base == 0 then
  if blocked <= now then
    level, blocked = 0, 0
    redis.call('HSET', KEYS[1], 'level', 0, 'blocked_until_ms', 0)
  end
elseif blocked <= now and not stale then
  local gentle = false
  if span > 0 and level == 0 then
    local pace, of_minute = paced()
    before = rate > 0 and math.min(limit or rate, rate) or limit or 0
    local met = before > 0 and before or pace or LEAST
    gentle = was ~= nil and was.passed >= 0.25 and met <= was.peak * 1.2
    local peak = met
    if gentle then
      after = met * 0.85
    else
      after = met / 2
      -- what the minute held when it was full is what it holds, if all of it is known
      if minute and of_minute and of_minute * 1000 / 60 < met then
        peak = of_minute * 1000 / 60
        after = peak * 0.9
      end
    end
    after = math.floor(math.max(after, math.min(LEAST, met)))
    peak = math.floor(math.max(peak, after + 1))
    -- at a small rate the climb is slower, so that of a hundred sends one or two meet the limit
    span = math.floor(math.min(600000, math.max(span, 120000000 / peak)))
    was = { low = after, peak = peak, span = span }
  end
  if not gentle or minute then
    local wait = math.min(max, base * 2 ^ math.min(level, 20))
    if minute then wait = math.max(1000, math.min(wait, 60250 - now % 60000)) end
    blocked = now + wait
    level = level + 1
    redis.call('HSET', KEYS[1], 'blocked_until_ms', string.format('%d', blocked), 'level', level,
      'blocked_at_ms', now)
  end
  if was and span > 0 then  -- while nothing may be sent nothing climbs
    redis.call('HSET', KEYS[1], 'limit', string.format('%d %d %d %d %d', was.low, was.peak,
      math.max(now, blocked), was.span, now))
  end
end
-- a rate that was set live stays until it is taken back
if redis.call('HEXISTS', KEYS[1], 'rate') == 1 then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], 172800000) end
return { string.format('%d', blocked), level, before, after }
