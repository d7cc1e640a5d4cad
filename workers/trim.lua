#!lua flags=allow-oom
-- trim: hours that are past leave the stock; what was still available in them has expired.
--
-- Guarantee: run again it changes nothing; a use is counted expired once (I1).
--
-- KEYS  1 stock hash, 2 ledger hash
-- ARGV  1 unused, 2 now_ms or ''
-- Returns  uses that expired
--@include clock
local expired = 0
local hour = math.floor(now / 3600000)
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local kind, at = string.match(fields[i], '^([fpu]):(%d+)$')
  if kind and tonumber(at) < hour then
    local uses = tonumber(fields[i + 1])
    if kind ~= 'u' and uses ~= 0 then
      redis.call('HINCRBY', KEYS[2], 'expired:' .. kind, uses)
      expired = expired + uses
    end
    redis.call('HDEL', KEYS[1], fields[i])
  elseif kind and fields[i + 1] == '0' then
    redis.call('HDEL', KEYS[1], fields[i])
  end
end
redis.call('HSET', KEYS[1], 'trimmed', hour)
return expired
