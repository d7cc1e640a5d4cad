-- forecast_users: whom one bucket of an audience lets us reach, and when their uses end. Those who are
-- suppressed are members, and nothing more.
--
-- KEYS  1 stock  hash  of the app in the lane: it says where to run
-- ARGV  1 prefix of the lane, 2 app, 3 channel, 4 template, 5 audience: as bucket.lua reads it,
--       6 bucket, then per horizon: a moment (ms), ascending, the first of them now
-- Found on the way: the audience's sets, permits:APP:OPENID, subs:APP:OPENID, the lists of listed.lua
-- Returns  {members, suppressed ones of them, per horizon: users who have a use that ends after that
--       moment, uses to be had now, then hour, uses that end in it …}; of a subscription none has an
--       hour
--@include audiences/bucket
--@include suppressions/listed
local prefix, app, channel, template = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local bucket, whose = ARGV[6], { prefix = prefix, app = app, audience = ARGV[5] }
bucket_is_sound(whose, bucket)
local members = members_of(whose, bucket)
local reached, hours, uses, suppressed = {}, {}, 0, 0
local lists = lists_of(prefix, app)
for i = 7, #ARGV do reached[i - 6] = 0 end
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
      '(' .. ARGV[7], '+inf', 'WITHSCORES')
    uses = uses + #found / 2
    for i = 2, #found, 2 do
      local hour = string.format('%d', math.floor(tonumber(found[i]) / 3600000))
      hours[hour] = (hours[hour] or 0) + 1
    end
    local last = tonumber(found[#found] or 0)
    for i = 1, #reached do
      if last > tonumber(ARGV[i + 6]) then reached[i] = reached[i] + 1 end
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
