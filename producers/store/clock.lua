-- clock: the server's time decides every expiry, delay and lease; tests may pass their own.
-- Expects ARGV[2]: now_ms, or '' for the server's clock.
local now
if ARGV[2] ~= '' then
  now = tonumber(ARGV[2])
  if not now or now < 0 or now > 2 ^ 53 or now % 1 ~= 0 then
    error({ err = 'ERR now_ms is no time' })
  end
else
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
