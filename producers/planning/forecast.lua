-- forecast_users: whom one bucket of an audience lets us reach, and when their uses end. Those who are
-- suppressed are members, and nothing more; who is kept or capped has uses, which are not reached. It
-- is short, whatever the bucket holds: nobody more is looked at after LOOKED_AT users and uses (a user
-- counts for four). Who comes or goes between two pages may be met twice, or not: it is a forecast.
--
-- KEYS  1 stock  hash  of the app in the lane: it says where to run
-- ARGV  1 prefix of the lane, 2 app, 3 channel, 4 template, 5 audience: as bucket.lua reads it,
--       6 bucket, 7 keep: as kept.lua reads it, 8 caps: as capped.lua does, 9 purpose or '',
--       10 given: openids of the bucket that follow in place of the audience's (0-1000), 11 skipped: how
--       many of the bucket were looked at before, then these openids, then per horizon: a moment (ms),
--       ascending
-- Found on the way: the audience's sets, permits:APP:OPENID, subs:APP:OPENID, daily:APP:DAY:BUCKET, the
-- lists of listed.lua
-- Returns  {left: how many are not looked at yet, members looked at, suppressed ones of them, those kept
--       and those capped at the first moment, per horizon: users who have a use that ends after that
--       moment, uses to be had now, then hour, uses that end in it …}; of a subscription none has an
--       hour
--@include audiences/bucket
--@include lanes/kept
--@include lanes/capped
--@include suppressions/listed
local prefix, app, channel, template = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local bucket, whose = ARGV[6], { prefix = prefix, app = app, audience = ARGV[5] }
bucket_is_sound(whose, bucket)
local given, skipped = whole('openids', ARGV[10], 0, 1000), whole('skipped', ARGV[11], 0, 2 ^ 42)
local LOOKED_AT = 2000
local members = {}
for i = 1, given do members[i] = ARGV[11 + i] end
if given == 0 then members = members_of(whose, bucket) end
local reached, hours, uses, suppressed, kept, capped = {}, {}, 0, 0, 0, 0
local lists = lists_of(prefix, app)
local keep, caps, purpose, moments = ARGV[7], ARGV[8], ARGV[9], {}
for i = 12 + given, #ARGV do
  reached[#reached + 1] = 0
  moments[#moments + 1] = tonumber(ARGV[i])
end
local left = kept_of(keep, template)  -- to single messages
local day, _, day_ends = string.match(caps, '^(%d+) (%d+) (%d+)')
local most = day and cap_of(caps, purpose) or 0

-- Until when a user is capped (ms); 0 when the user is not.
local function capped_until(openid)
  if most == 0 or had_of(daily_key(prefix, app, num(day), bucket), openid, purpose) < most then return 0 end
  return num(day_ends)
end

-- One user, who has a use that ends after each moment before `last`, and one that a broadcast may have
-- after each before `free`.
local function count_user(openid, last, free)
  local from = capped_until(openid)
  if moments[1] < from then
    capped = capped + 1
  elseif last > moments[1] and free <= moments[1] then
    kept = kept + 1
  end
  for i = 1, #reached do
    if free > moments[i] and moments[i] >= from then reached[i] = reached[i] + 1 end
  end
end
local looked, at = 0, math.min(skipped, #members)
while at < #members and looked < LOOKED_AT do
  at, looked = at + 1, looked + 4
  local openid = members[at]
  if #lists > 0 and is_listed(lists, bucket, openid) then
    suppressed = suppressed + 1  -- sent nothing, whatever is there
  elseif channel == 'subscribe' then
    local count = tonumber(redis.call('HGET', prefix .. 'subs:' .. app .. ':' .. openid, template)
      or 0)
    uses = uses + math.max(0, count)
    count_user(openid, count ~= 0 and math.huge or 0, (count < 0 or count > left) and math.huge or 0)
  else
    local found = redis.call('ZRANGEBYSCORE', prefix .. 'permits:' .. app .. ':' .. openid,
      '(' .. ARGV[12 + given], '+inf', 'WITHSCORES')
    uses, looked = uses + #found / 2, looked + #found / 2
    for i = 2, #found, 2 do
      local hour = string.format('%d', math.floor(tonumber(found[i]) / 3600000))
      hours[hour] = (hours[hour] or 0) + 1
    end
    count_user(openid, tonumber(found[#found] or 0), tonumber(found[#found - 2 * left] or 0))
  end
end
local reply = { #members - at, math.max(at - skipped, 0), suppressed, kept, capped }
for i = 1, #reached do reply[#reply + 1] = reached[i] end
reply[#reply + 1] = uses
for hour, n in pairs(hours) do
  reply[#reply + 1] = tonumber(hour)
  reply[#reply + 1] = n
end
return reply
