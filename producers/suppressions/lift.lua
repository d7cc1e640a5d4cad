#!lua flags=allow-oom
-- lift: take users of one lane off an app's suppression list; or leave no more than a digest of them.
--
-- Guarantee: sizes and bitmaps say exactly what the sets hold. Forgetting keeps what somebody wished:
-- whoever was imported or opted out stays listed, by the SHA-1 of the openid. Run again it changes
-- nothing.
--
-- KEYS  1 imported, 2 opted_out, 3 invalid, 4 forgotten: strings, the sizes of the lists in this lane
--       (found by ARGV 1: audience:APP:!REASON:BUCKET, buckets:APP:!REASON)
-- ARGV  1 prefix of the lane, 2 app, 3 reasons whose lists are left, by blanks, 4 forget: 1 to leave a
--       digest, 0 to leave nothing, then items (bucket:openid)
-- Returns  how many were listed
--@include store/check
--@include suppressions/listed
local prefix, app, forget = ARGV[1], ARGV[2], whole('forget', ARGV[4], 0, 1) == 1
local leave = {}
for reason in string.gmatch(ARGV[3], '%S+') do leave[reason] = true end
local function set_of(reason, bucket) return prefix .. 'audience:' .. app .. ':!' .. reason .. ':' .. bucket end
local function bitmap_of(reason) return prefix .. 'buckets:' .. app .. ':!' .. reason end

local items = {}
for arg = 5, #ARGV do
  local bucket, openid = string.match(ARGV[arg], '^(%d+):(.+)$')
  whole('bucket', bucket, 0, 2 ^ 20)
  for _, reason in ipairs(REASONS) do typed('set', set_of(reason, bucket)) end
  items[#items + 1] = { bucket, openid }
end
if #KEYS ~= #REASONS then refuse('lists', #KEYS) end
for i, reason in ipairs(REASONS) do audience_is_sound({ KEYS[i], bitmap_of(reason) }) end

-- Returns whether it changed.
local function change(verb, place, bucket, name)
  local reason = REASONS[place]
  local changed = redis.call(verb, set_of(reason, bucket), name)
  if changed == 1 then
    redis.call('INCRBY', KEYS[place], verb == 'SADD' and 1 or -1)
    redis.call('SETBIT', bitmap_of(reason), bucket, redis.call('EXISTS', set_of(reason, bucket)))
  end
  return changed == 1
end

local found = 0
for _, item in ipairs(items) do
  local bucket, openid, was = item[1], item[2], {}
  local digest = redis.sha1hex(openid)
  if forget and (redis.call('SISMEMBER', set_of('imported', bucket), openid) == 1
    or redis.call('SISMEMBER', set_of('opted_out', bucket), openid) == 1) then
    change('SADD', 4, bucket, digest)
  end
  for place, reason in ipairs(REASONS) do
    if leave[reason] and change('SREM', place, bucket, reason == 'forgotten' and digest or openid) then
      was[1] = true
    end
  end
  found = found + #was
end
return found
