-- clock: the server's time decides every expiry, delay and lease; tests may pass their own.
-- Returns epoch ms. given: now_ms, or '' for the server's clock.
local function clock(given)
  if given == '' then
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  end
  local now = string.match(given or '', '^%d+$') and tonumber(given)
  if not now or now > 2 ^ 53 then error({ err = 'ERR now_ms is no time' }) end
  return now
end
