-- reserve: give out slots, the moments at which sends may start, to one worker.
--
-- Guarantee: over all workers, slots are spaced at least 1 / rate apart (GCRA without a burst: the
-- theoretical arrival time never lies in the past), so no window holds more than its share (I4); a
-- broadcast's own rate nests under the app's, and what it must leave out stays with the others;
-- minute and day counts hold together with them. Less than was asked for is granted when the next
-- slots lie too far ahead, when the minute, the day or WeChat's quota of the channel is used up, or while WeChat's limit error holds everyone back. Being limited costs no retry: the
-- answer says when to come again. A rate that was set while running goes before the settings' one,
-- and a changed rate holds from the next slot on: none of the old spacing is waited for. Below it holds
-- the limit that WeChat's errors made, while there is one (climb.lua).
--
-- All arithmetic is in whole microseconds since the epoch (below 2^53, so exact in a double).
--
-- KEYS  1 reply string, 2 limiter hash: next_us, blocked_at_ms and blocked_until_ms (a clock
--       that was set back to before it frees everybody), level, day, day_count, rate (set
--       while running), limit (see climb.lua), sent (slots given so far), sent:CHANNEL (of one
--       channel), quota:CHANNEL ("bound until_ms": until then sent:CHANNEL goes no further, see
--       quota_note.lua), marks ("second sent" of the last minute, each ten seconds), ahead (slots beyond next_us that are given already) and
--       w:0 … w:63, "second count" of each of the last seconds; then a limiter hash (next_us) per broadcast
--       with a rate of its own
-- ARGV  1 token, 2 now_us or '', 3 rate per 1000 s (0 unlimited), 4 per_minute (0), 5 per_day (0),
--       6 day_offset_ms (to add to the epoch so that a day starts at a multiple of 24 h),
--       7 unused: slots returned, 8 ahead_us: how far ahead a slot may lie, 9 plain: sends wanted
--       without a rate of their own, 10 channel of all of them, 11 bounded: 1 when WeChat's quota
--       of the channel holds, 0: the app does not ask for it any more, and what was said is nothing,
--       12 lead_us: no slot that ends is nearer than that, for its sender cannot use it sooner,
--       then per further key: rate per 1000 s, sends wanted
-- Returns  {now_us, wait_ms (0 all granted), level, horizon_us (app), rate (per 1000 s, as it is set),
--       limit (per 1000 s; 0: the rate alone holds), restored (1 when it has just climbed back to the rate),
--       spent_ms (until the day ends, when it left less than was wanted; else 0; not in wait_ms), granted0, granted1 …, one string: the slots of the plain sends, then per further key its
--       slots, apart by blanks}; slots and horizon in us since the epoch
--@include store/reply
--@include lanes/climb
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
local now
if ARGV[2] ~= '' then now = tonumber(ARGV[2]) else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local limiter = KEYS[2]
local rate, per_minute, per_day = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local has = redis.call('HMGET', limiter, 'next_us', 'blocked_until_ms', 'level', 'day', 'day_count',
  'rate', 'ahead', 'blocked_at_ms', 'limit', 'sent', 'marks', 'sent:' .. ARGV[10],
  'quota:' .. ARGV[10])
rate = tonumber(has[6] or rate)
local level = tonumber(has[3] or 0)
local function us(value) return string.format('%.0f', value) end

local set_rate, restored = rate, 0
local limit = has[9] and climbed(has[9], math.floor(now / 1000))
local FREE = 20000000  -- per 1000 s: an app without a rate that has climbed so far has no limit any more
if has[9] and (not limit or limit >= (rate > 0 and rate or FREE)) then
  redis.call('HDEL', limiter, 'limit')
  limit, restored = nil, 1
end
if limit then rate = limit end
-- while WeChat's limit errors last, one probe at a time, at most ten a second
local probing = level > 0
if probing and (rate == 0 or rate > 10000) then rate = 10000 end
local spacing = rate > 0 and 1000000000 / rate or 0
local horizon = now + tonumber(ARGV[8])
-- under one rate the next slot never lies further ahead than this
local next_us = math.min(tonumber(has[1] or 0), horizon + spacing)

-- An own rate may give a slot some way ahead; the app's slots before it stay free for others. Those
-- ahead lie on the same grid as next_us, so that next_us can step over them.
local ahead = {}
for at in string.gmatch(has[7] or '', '%d+') do
  at = tonumber(at)
  if spacing > 0 and at <= horizon + spacing then ahead[#ahead + 1] = at end
end

local function step_over()
  while ahead[1] and ahead[1] < next_us + spacing - 2 do
    local at = table.remove(ahead, 1)
    if at > next_us - spacing + 2 then next_us = at + spacing end
  end
end

-- The first free slot of the app from a moment on, and its place among those ahead.
local function free_slot(from)
  local slot, place = next_us, 1
  if spacing == 0 then return math.max(from, now), place end
  if from > slot then slot = slot + math.ceil((from - slot) / spacing - 1e-6) * spacing end
  while ahead[place] and ahead[place] < slot + spacing - 2 do
    if ahead[place] > slot - spacing + 2 then slot = ahead[place] + spacing end
    place = place + 1
  end
  return slot, place
end

local lead = tonumber(ARGV[12])
if next_us < now then next_us = now end
if spacing > 0 and next_us < now + lead then next_us = now + lead end
step_over()

local groups, wanted = {}, 0
local function group(key, own_rate, want)
  local next_own = key and tonumber(redis.call('HGET', key, 'next_us') or 0) or 0
  local own_spacing = own_rate > 0 and 1000000000 / own_rate or 0
  local nearest = math.min(next_own, horizon + own_spacing)
  groups[#groups + 1] = { key = key, want = want, slots = {}, spacing = own_spacing,
    at = math.max(key and now + lead or now, nearest), moved = nearest < next_own }
  wanted = wanted + want
end
group(nil, 0, tonumber(ARGV[9]))
for i = 3, #KEYS do group(KEYS[i], tonumber(ARGV[13 + (i - 3) * 2]), tonumber(ARGV[14 + (i - 3) * 2])) end

local may, wait_ms = wanted, 0
local function at_most(limit, wait)
  if limit < may then may, wait_ms = math.max(0, limit), math.max(wait_ms, wait) end
end

local blocked = tonumber(has[2] or 0) * 1000
local since = tonumber(has[8] or 0) * 1000
if blocked > now and since <= now then at_most(0, math.ceil((blocked - now) / 1000)) end
if probing then at_most(1, 1000) end

local DAY = 86400000
local now_ms = math.floor(now / 1000)
local day = math.floor((now_ms + tonumber(ARGV[6])) / DAY)
local day_count = tonumber(has[4] or -1) == day and tonumber(has[5] or 0) or 0
day_count = math.max(0, day_count - tonumber(ARGV[7]))
local spent_ms = 0
local function of_day(left, ends_ms)
  if left < may then may, spent_ms = math.max(0, left), math.max(spent_ms, ends_ms - now_ms) end
end
if per_day > 0 then of_day(per_day - day_count, (day + 1) * DAY - tonumber(ARGV[6])) end
local of_channel = math.max(0, (tonumber(has[12]) or 0) - tonumber(ARGV[7]))
if has[13] and ARGV[11] == '1' then
  local bound, until_ms = string.match(has[13], '^(%d+) (%d+)$')
  bound, until_ms = tonumber(bound), tonumber(until_ms)
  if until_ms and until_ms > now_ms and until_ms <= now_ms + DAY then of_day(bound - of_channel, until_ms) end
end

local second, this_second = math.floor(now / 1000000), 0
if per_minute > 0 then
  -- the last seconds take turns in 64 fields, so that there are never more
  local window = {}
  for place = 0, 63 do window[place + 1] = 'w:' .. place end
  local used, oldest = 0, second
  local counts = redis.call('HMGET', limiter, unpack(window))
  for _, of_second in pairs(counts) do
    local at, count = string.match(of_second or '', '^(%d+) (%d+)$')
    at = tonumber(at)
    if at and at >= second - 60 and at <= second then
      used, oldest = used + tonumber(count), math.min(oldest, at)
      if at == second then this_second = tonumber(count) end
    end
  end
  at_most(per_minute - used, (oldest + 61) * 1000 - now_ms)
end

-- Give the slots in the order in which each group may have its next one; none that lies too far
-- ahead, for its sender would hold a permit all the while. An own rate whose time has come has the
-- slot, and the plain sends the one after it: they have lost nothing, and it would fall behind.
local plain, granted = groups[1], 0
while granted < may do
  local own
  for i = 2, #groups do
    local one = groups[i]
    if #one.slots < one.want and (not own or one.at < own.at) then own = one end
  end
  local best = #plain.slots < plain.want and plain or own
  local slot, place = free_slot(best.at)
  if own and best == plain and own.at <= slot then
    best = own
    slot, place = free_slot(own.at)
  end
  slot = math.ceil(slot)
  if slot > horizon then
    wait_ms = math.max(wait_ms, math.ceil((slot - horizon) / 1000))
    break
  end
  best.slots[#best.slots + 1] = slot
  -- waiting for a place on the grid is made up for: else an own rate would fall behind
  best.at = (slot - best.at < spacing and best.at or slot) + best.spacing
  if spacing == 0 then
    -- unlimited: a slot of an own rate that lies ahead is nobody else's business
  elseif slot >= next_us + spacing - 2 then
    table.insert(ahead, place, slot)
  else
    next_us = slot + spacing
    step_over()
  end
  granted = granted + 1
end

for i, at in ipairs(ahead) do ahead[i] = us(at) end
local sent = tonumber(has[10]) or 0
redis.call('HSET', limiter, 'next_us', us(next_us), 'day', day, 'day_count', day_count + granted,
  'ahead', table.concat(ahead, ' '), 'sent', us(sent + granted),
  'sent:' .. ARGV[10], us(of_channel + granted))
-- how much was given when, for whoever must know what a minute held (penalize.lua)
local marked = tonumber(string.match(has[11] or '', '^(%d+) '))
if not marked or math.abs(second - marked) >= 10 then
  local marks = { us(second) .. ' ' .. us(sent) }  -- the newest first
  for at, count in string.gmatch(has[11] or '', '(%d+) (%d+)') do
    at = tonumber(at)
    if at < second and second - at <= 70 then marks[#marks + 1] = us(at) .. ' ' .. count end
  end
  redis.call('HSET', limiter, 'marks', table.concat(marks, ' '))
end
if has[6] then redis.call('PERSIST', limiter) else redis.call('PEXPIRE', limiter, 2 * DAY) end
if per_minute > 0 and granted > 0 then
  redis.call('HSET', limiter, 'w:' .. us(second % 64),
    string.format('%d %d', second, this_second + granted))
end
-- counts under the names that an earlier version gave them, one for each second
if redis.call('HLEN', limiter) > 80 then
  local some = redis.call('HSCAN', limiter, 0, 'MATCH', 'm:*', 'COUNT', 200)[2]
  for i = 1, #some, 2 do redis.call('HDEL', limiter, some[i]) end
end
local reply = { us(now), wait_ms, level, us(next_us), set_rate, limit or 0, restored, spent_ms }
for _, one in ipairs(groups) do
  reply[#reply + 1] = #one.slots
  if one.key and (#one.slots > 0 or one.moved) then
    redis.call('HSET', one.key, 'next_us', us(one.at))
    redis.call('PEXPIRE', one.key, 3600000)
  end
end
local slots = {}
for _, one in ipairs(groups) do
  for _, slot in ipairs(one.slots) do slots[#slots + 1] = us(slot) end
end
reply[#reply + 1] = table.concat(slots, ' ')
return answer(KEYS[1], ARGV[1], reply)
