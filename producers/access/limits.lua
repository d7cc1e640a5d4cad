-- limits: let calls pass, as far as each of their limits has room, and count them in all of them.
--
-- Guarantee: of each limit at most `burst` at once, and one more per interval (GCRA: the whole
-- state is the moment until which the limit is filled); in any time t no more than burst +
-- t / interval. All limits are charged, or none. What was charged can be given back, never more
-- than all of it. A lost reply counts nothing twice.
--
-- KEYS  1 reply   string  see reply.lua
--       then per limit: string, server epoch ms with a fraction; gone when it is empty again
-- ARGV  1 token, 2 now_ms or '', 3 most (calls, from 1)
--       then per limit: interval_ms (> 0, may have a fraction), burst (count), need (room that
--       must be there for one; 0 = never refuses), cost (what each is charged as; 0 = only looked
--       at, less = given back)
-- Returns  granted (0-most), wait_ms until one would pass (0 when any was granted), now_ms
--@include store/reply
--@include store/clock
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
local now = clock(ARGV[2])
local granted, wait = tonumber(ARGV[3]), 0
local filled, full, interval, cost, beyond = {}, {}, {}, {}, {}
for limit = 1, #KEYS - 1 do
  local base = 3 + (limit - 1) * 4
  local burst, need = tonumber(ARGV[base + 2]), tonumber(ARGV[base + 3])
  interval[limit], cost[limit] = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 4])
  full[limit] = burst * interval[limit]
  local until_ms = tonumber(redis.call('GET', KEYS[limit + 1]) or 0)
  beyond[limit] = until_ms - now > full[limit] + 1  -- ms, of rounding
  filled[limit] = math.min(math.max(until_ms - now, 0), full[limit])
  if need > 0 then
    -- a millionth more: what is exactly full must not be refused for a rounding
    local room = full[limit] - filled[limit] + 1e-6 * interval[limit]
    local left = room - need * interval[limit]
    if left < 0 then
      wait = math.max(wait, 1, math.ceil(-left - 0.001))
    else  -- a look costs nothing: as many as are asked for
      granted = math.min(granted, 1 + math.floor(left / (cost[limit] * interval[limit])))
    end
  end
end
local function fill(limit, ms)
  if ms > 0 then
    redis.call('SET', KEYS[limit + 1], string.format('%.6f', now + ms),
      'PX', math.max(1, math.ceil(ms)))
  else
    redis.call('DEL', KEYS[limit + 1])
  end
end
if wait > 0 then
  for limit = 1, #KEYS - 1 do
    -- a clock that was set back shuts nobody out for longer than a full limit does
    if beyond[limit] then fill(limit, full[limit]) end
  end
  return answer(KEYS[1], ARGV[1], {0, wait, now})
end
for limit = 1, #KEYS - 1 do
  if cost[limit] ~= 0 then
    local charge = granted * cost[limit] * interval[limit]
    fill(limit, math.min(filled[limit] + charge, full[limit]))
  end
end
return answer(KEYS[1], ARGV[1], {granted, 0, now})
