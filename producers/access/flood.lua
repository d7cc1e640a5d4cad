-- flood: let one call pass, if each of its limits has room, and count it in all of them.
--
-- Guarantee: of each limit at most `burst` at once, and one more per interval (GCRA: the whole
-- state is the moment until which the limit is filled). All limits are charged, or none. What was
-- charged can be given back, never more than all of it.
--
-- KEYS  1 reply   string  see reply.lua
--       then per limit: string, server epoch ms with a fraction; gone when it is empty again
-- ARGV  1 token, 2 now_ms or ''
--       then per limit: interval_ms (> 0, may have a fraction), burst (count), need (room that
--       must be there; 0 = never refuses), cost (what is charged; 0 = only looked at, less = given
--       back)
-- Returns  admitted (1 or 0), wait_ms until all would have room (0 when admitted), now_ms
--@include store/reply
--@include store/clock
local wait = 0
local filled, most = {}, {}
for limit = 1, #KEYS - 1 do
  local base = 2 + (limit - 1) * 4
  local interval, burst = tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2])
  local need = tonumber(ARGV[base + 3])
  most[limit] = now + burst * interval
  -- never beyond the burst, so that a clock that was set back shuts nobody out for long
  local until_ms = tonumber(redis.call('GET', KEYS[limit + 1]) or 0)
  filled[limit] = math.min(math.max(until_ms, now), most[limit])
  if need > 0 then
    wait = math.max(wait, math.ceil(filled[limit] + need * interval - most[limit] - 0.001))
  end
end
if wait > 0 then return answer({0, wait, now}) end
for limit = 1, #KEYS - 1 do
  local base = 2 + (limit - 1) * 4
  local cost = tonumber(ARGV[base + 4])
  if cost ~= 0 then
    local until_ms = math.min(filled[limit] + cost * tonumber(ARGV[base + 1]), most[limit])
    if until_ms > now then
      redis.call('SET', KEYS[limit + 1], string.format('%.3f', until_ms),
        'PX', math.max(1, math.ceil(until_ms - now)))
    else
      redis.call('DEL', KEYS[limit + 1])
    end
  end
end
return answer({1, 0, now})
