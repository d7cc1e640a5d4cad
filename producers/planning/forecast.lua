-- forecast_users: whom one bucket of an audience lets us reach, and when their uses end. Those who are
-- suppressed are members, and nothing more.
--
-- KEYS  1 members  set  an audience in one bucket
-- ARGV  1 prefix of the lane, 2 app, 3 channel, 4 template, then per horizon: a moment (ms),
--       ascending, the first of them now
-- Found on the way: permits:APP:OPENID, subs:APP:OPENID, the lists of listed.lua
-- Returns  {members, suppressed ones of them, per horizon: users who have a use that ends after that
--       moment, uses to be had now, then hour, uses that end in it …}; of a subscription none has an
--       hour
--@include suppressions/listed
local prefix, app, channel, template = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local members = redis.call('SMEMBERS', KEYS[1])
local reached, hours, uses, suppressed = {}, {}, 0, 0
local lists, bucket = lists_of(prefix, app), string.match(KEYS[1], '[^:]*$')
for i = 5, #ARGV do reached[i - 4] = 0 end
for _, openid in ipairs(members) do
  if #lists > 0 and is_listed(lists, bucket, openid) then
    suppressed = suppressed + 1  -- sent nothing, whatever is there
  elseif channel == 'subscribe' then
    local count = tonumber(redis.call('HGET', prefix .. 'subs:' .. app .. ':' .. openid, template)
      or 0)
    if count ~= 0 then
      uses = uses + math.max(0, count)
      for i = 1, #reached do reached[i] = reached[i] + 1 end
    end
  else
    local found = redis.call('ZRANGEBYSCORE', prefix .. 'permits:' .. app .. ':' .. openid,
      '(' .. ARGV[5], '+inf', 'WITHSCORES')
    uses = uses + #found / 2
    for i = 2, #found, 2 do
      local hour = string.format('%d', math.floor(tonumber(found[i]) / 3600000))
      hours[hour] = (hours[hour] or 0) + 1
    end
    local last = tonumber(found[#found] or 0)
    for i = 1, #reached do
      if last > tonumber(ARGV[i + 4]) then reached[i] = reached[i] + 1 end
    end
  end
end
local reply = { #members, suppressed }
for i = 1, #reached do reply[#reply + 1] = reached[i] end
reply[#reply + 1] = uses
for hour, n in pairs(hours) do
  reply[#reply + 1] = tonumber(hour)
  reply[#reply + 1] = n
end
return reply
