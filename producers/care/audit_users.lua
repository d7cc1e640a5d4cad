-- audit_users: what some users of a lane hold, each counted in one atomic look. It changes nothing.
--
-- Guarantee: short, whatever they hold: after LOOKED_AT uses and accepts no further user is begun. Who
-- comes or goes between two calls is counted or not; nobody is counted in part.
--
-- KEYS  1 stock  hash  of the app in the lane
-- ARGV  1 prefix of the lane, 2 app, 3 trimmed: the first hour that the stock holds, then openids
-- Found on the way: permits:APP:OPENID, subs:APP:OPENID.
-- Returns  how many of the openids were counted, the first ones, then field, uses … : f:HOUR, p:HOUR
--       (available by expiry hour), s:TEMPLATE, u:HOUR (users whose last use ends then)
--@include permits/counts
local HOUR, LOOKED_AT = 3600000, 1000
local sums, looked, counted = {}, 0, 0
local function add(field, n) sums[field] = (sums[field] or 0) + n end
local function hour_of(at) return string.format('%d', math.floor(at / HOUR)) end
for i = 4, #ARGV do
  local permits = ARGV[1] .. 'permits:' .. ARGV[2] .. ':' .. ARGV[i]
  local uses = redis.call('ZRANGEBYSCORE', permits, math.max(1, ARGV[3] * HOUR), '+inf',
    'WITHSCORES')
  for at = 1, #uses, 2 do add(string.sub(uses[at], 1, 1) .. ':' .. hour_of(tonumber(uses[at + 1])), 1) end
  if #uses > 0 then add('u:' .. hour_of(tonumber(uses[#uses])), 1) end
  local counts, read = counts_of(ARGV[1] .. 'subs:' .. ARGV[2] .. ':' .. ARGV[i], KEYS[1])
  for template, count in pairs(counts) do
    if count > 0 then add('s:' .. template, count) end
  end
  counted, looked = counted + 1, looked + #uses / 2 + read
  if looked >= LOOKED_AT then break end
end
local reply = { counted }
for field, n in pairs(sums) do
  reply[#reply + 1] = field
  reply[#reply + 1] = n
end
return reply
