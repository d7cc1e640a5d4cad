-- capped: how many messages of a purpose a user had on a day of the app's zone.
--   daily  hash, of a day and a bucket  openid -> "BROADCAST.PURPOSE" of each message that counts, with
--          blanks between: the last ten characters of the broadcast's id
--
-- A message counts from its claim on, and no more once it surely was not sent, which whoever ends its
-- flight says in the same script. Each stands for itself, so counting it twice, or taking back what was
-- not counted, changes nothing.
--
-- caps: "DAY STARTS ENDS", then " PURPOSE:MOST" of each that has a cap; '' where none has. DAY: since the
-- epoch, on the zone's clocks; STARTS, ENDS: its ends (ms).
--@include store/check
local DAY = 86400000
local DAILY_TTL = 2 * DAY

local function daily_key(prefix, app, day, bucket)
  return string.format('%sdaily:%s:%d:%s', prefix, app, day, bucket)
end

local function counted_as(id, purpose) return string.sub(id, -10) .. '.' .. purpose end

-- The day that it is, as far as a caller may be wrong by one; nothing where no purpose has a cap.
local function day_of(caps, now)
  local day, starts, ends = string.match(caps, '^(%d+) (%d+) (%d+)')
  if not day then return end
  return num(day) + (now >= num(ends) and 1 or now < num(starts) and -1 or 0)
end

local function cap_of(caps, purpose)
  local _, last = string.find(caps, ' ' .. purpose .. ':', 1, true)
  return last and num(string.match(caps, '^%d+', last + 1)) or 0
end

-- How many of this purpose count for a user, but for one; then all that counts.
local function had_of(daily, openid, purpose, but)
  local had, text = 0, text_of(redis.pcall('HGET', daily, openid))
  if text == '' then return had, text end
  for word in string.gmatch(text, '%S+') do
    if word ~= but and string.match(word, '%.(.*)$') == purpose then had = had + 1 end
  end
  return had, text
end

local function has_word(text, word) return string.find(' ' .. text .. ' ', ' ' .. word .. ' ', 1, true) end

local ended = {}  -- keys that this script saw to have an end
local function count_had(daily, openid, word, text)
  if text ~= '' then
    if has_word(text, word) then return end
    word = text .. ' ' .. word
  end
  redis.pcall('HSET', daily, openid, word)
  if not ended[daily] then
    ended[daily] = true
    if redis.pcall('HLEN', daily) == 1 then redis.call('PEXPIRE', daily, DAILY_TTL) end
  end
end

-- It surely was not sent. since: when it was claimed; the zone's day is the UTC one, or beside it.
local function count_back(prefix, app, id, purpose, item, since)
  local bucket, openid = string.match(item, '^(%d+):(.*)$')
  local word, utc = counted_as(id, purpose), math.floor(since / DAY)
  for day = utc - 1, utc + 1 do
    local daily = daily_key(prefix, app, day, bucket)
    local text = text_of(redis.pcall('HGET', daily, openid))
    if has_word(text, word) then
      local left = {}
      for other in string.gmatch(text, '%S+') do
        if other ~= word then left[#left + 1] = other end
      end
      if #left == 0 then return redis.call('HDEL', daily, openid) end
      redis.call('HSET', daily, openid, table.concat(left, ' '))
      return
    end
  end
end
