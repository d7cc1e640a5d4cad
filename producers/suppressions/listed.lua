-- listed: whether a user is on an app's suppression list, and how WeChat puts one there.
--   audience  set     of !REASON, in one bucket: openids; of !forgotten: their digests
--   size      string  of !REASON: how many they are in this lane
--   buckets   bitmap  of !REASON: the buckets that may have some
--@include store/check
local REASONS = { 'imported', 'opted_out', 'invalid', 'forgotten' }

-- The lists of an app in a lane that hold anybody: of each what its sets' keys begin with, and whether
-- digests lie in it. Where nobody is suppressed this read is all that it costs.
local function lists_of(prefix, app)
  local sizes, lists = {}, {}
  for i, reason in ipairs(REASONS) do sizes[i] = prefix .. 'size:' .. app .. ':!' .. reason end
  local counts = redis.call('MGET', unpack(sizes))
  for i, reason in ipairs(REASONS) do
    if num(counts[i] or 0) > 0 then
      lists[#lists + 1] = { sets = prefix .. 'audience:' .. app .. ':!' .. reason .. ':',
                            hides = reason == 'forgotten' }
    end
  end
  return lists
end

local function is_listed(lists, bucket, openid)
  for _, list in ipairs(lists) do
    local name = list.hides and redis.sha1hex(openid) or openid
    if redis.pcall('SISMEMBER', list.sets .. bucket, name) == 1 then return true end
  end
  return false
end

-- WeChat says that the openid is none of this app's.
local function list_invalid(prefix, app, bucket, openid)
  if redis.pcall('SADD', prefix .. 'audience:' .. app .. ':!invalid:' .. bucket, openid) == 1 then
    redis.pcall('SETBIT', prefix .. 'buckets:' .. app .. ':!invalid', bucket, 1)
    redis.pcall('INCR', prefix .. 'size:' .. app .. ':!invalid')
  end
end
