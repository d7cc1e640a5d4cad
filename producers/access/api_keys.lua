#!lua flags=allow-oom
-- api_keys: take a block of requests out of one key's limit (GCRA on the server's clock).
--
-- Guarantee: in any time t no more requests are granted than burst + rate × t. A lost reply
-- grants nothing twice.
--
-- The limit is one number: the time (µs) at which all that was granted is paid for. A request
-- pays for 1/rate of a second; what lies ahead of now is debt, and it may not exceed the burst.
--
-- KEYS  1 reply  string  see reply.lua
--       2 limit  string  that time; gone once it is past
-- ARGV  1 token, 2 now_ms or '', 3 rate (requests per second), 4 burst (requests), 5 most
-- Returns  {granted, wait_ms}: wait_ms is 0 unless none was granted
--@include store/reply
--@include store/clock
local limit, rate, burst, most = KEYS[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now_us, each_us = now * 1000, 1000000 / rate
local paid_at = math.max(tonumber(redis.call('GET', limit) or 0), now_us)
local room = math.floor((now_us + burst * each_us - paid_at) / each_us + 1e-6)
local granted = math.max(0, math.min(most, room))
if granted == 0 then
  local wait_us = paid_at + each_us - burst * each_us - now_us
  return answer({ 0, math.max(1, math.ceil(wait_us / 1000)) })
end
paid_at = paid_at + granted * each_us
redis.call('SET', limit, string.format('%.3f', paid_at), 'PX', math.ceil((paid_at - now_us) / 1000) + 1)
return answer({ granted, 0 })
