#!lua flags=allow-oom
-- trim: hours that are past leave the stock; what was still available in them has expired.
--
-- Guarantee: run again it changes nothing; a use is counted expired once (I1). It looks at the hours
-- since the last run alone, 400 of them at the most: after a longer sleep the next run goes on.
--
-- KEYS  1 stock hash, 2 ledger hash
-- ARGV  1 now_ms or ''
-- Returns  uses that expired
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local stock, ledger = KEYS[1], KEYS[2]
local MOST_HOURS = 400
local hour = math.floor(now / 3600000)
local known = tonumber(redis.call('HGET', stock, 'trimmed') or nil)
if known and not (known >= 0 and known <= hour and known % 1 == 0) then known = nil end
redis.call('HLEN', ledger)
if known == hour then return 0 end
local from = known
if not known then  -- the first run of this lane and app
  from = hour
  for _, field in ipairs(redis.call('HKEYS', stock)) do
    from = math.min(from, tonumber(string.match(field, '^[fpu]:(%d+)$') or hour))
  end
end
local to = math.min(hour, from + MOST_HOURS)
local fields = {}
for at = from, to - 1 do
  for _, kind in ipairs({ 'f', 'p', 'u' }) do fields[#fields + 1] = string.format('%s:%d', kind, at) end
end
local counts = #fields > 0 and redis.call('HMGET', stock, unpack(fields)) or {}
local expired, past = 0, {}
for i, count in ipairs(counts) do
  if count then
    past[#past + 1] = fields[i]
    local kind, uses = string.sub(fields[i], 1, 1), tonumber(count) or 0
    if kind ~= 'u' and uses ~= 0 then
      bump(ledger, 'expired:' .. kind, uses)
      expired = expired + uses
    end
  end
end
if #past > 0 then redis.call('HDEL', stock, unpack(past)) end
if to > from or not known then redis.call('HSET', stock, 'trimmed', to) end
return expired
