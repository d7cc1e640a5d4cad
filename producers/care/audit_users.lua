-- audit_users: what the users of one bucket hold, counted in one atomic look.
--
-- KEYS  1 members  set  the audience `all` in one bucket
--       2 stock    hash
-- ARGV  1 prefix of the lane, 2 app, 3 trimmed: the first hour that the stock holds
-- Found on the way: permits:APP:OPENID, subs:APP:OPENID.
-- Returns  field, uses … : f:HOUR, p:HOUR (available by expiry hour), s:TEMPLATE, u:HOUR (users whose
--       last use ends then), users
--@include permits/counts
local HOUR = 3600000
local sums = {}
local function add(field, n) sums[field] = (sums[field] or 0) + n end
local function hour_of(at) return string.format('%d', math.floor(at / HOUR)) end
for _, openid in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  add('users', 1)
  local permits = ARGV[1] .. 'permits:' .. ARGV[2] .. ':' .. openid
  local uses = redis.call('ZRANGEBYSCORE', permits, math.max(1, ARGV[3] * HOUR), '+inf',
    'WITHSCORES')
  for i = 1, #uses, 2 do add(string.sub(uses[i], 1, 1) .. ':' .. hour_of(tonumber(uses[i + 1])), 1) end
  if #uses > 0 then add('u:' .. hour_of(tonumber(uses[#uses])), 1) end
  local subs = ARGV[1] .. 'subs:' .. ARGV[2] .. ':' .. openid
  for template, count in pairs(counts_of(subs, KEYS[2])) do
    if count > 0 then add('s:' .. template, count) end
  end
end
local reply = {}
for field, n in pairs(sums) do
  reply[#reply + 1] = field
  reply[#reply + 1] = n
end
return reply
