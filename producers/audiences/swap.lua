#!lua
-- audience_swap: put sets that were built beside in the place of an audience's buckets: a step of
-- its replacement.
--
-- Guarantee: each bucket is wholly the old one or the new one, and size and bitmap say exactly what
-- the sets hold, after each step. Run again it changes nothing: a bucket whose new set is in place
-- already is left alone.
--
-- KEYS  1 size     string  members of the audience in this lane
--       2 buckets  bitmap  its non-empty buckets
--       then per bucket: members set, the set beside (both of this lane)
-- ARGV  per bucket: bucket number, 1 when a set was built beside, 0 when it is to be empty
-- Returns  {members that are new, members that were there before and are not now}
--@include store/check
local added, removed = 0, 0
audience_is_sound(KEYS)
if #ARGV ~= #KEYS - 2 or #KEYS % 2 ~= 0 then refuse('arguments', #ARGV) end
for arg = 1, #ARGV, 2 do whole('bucket', ARGV[arg], 0, 2 ^ 20) end
for key = 3, #KEYS, 2 do
  local members, beside, bucket, built = KEYS[key], KEYS[key + 1], ARGV[key - 2], ARGV[key - 1]
  local before = redis.call('SCARD', members)
  if built == '0' then
    redis.call('UNLINK', members)
    redis.call('SETBIT', KEYS[2], bucket, 0)
    removed = removed + before
  elseif redis.call('EXISTS', beside) == 1 then
    local stay = redis.call('SINTERCARD', 2, members, beside)
    added = added + redis.call('SCARD', beside) - stay
    removed = removed + before - stay
    redis.call('UNLINK', members)
    redis.call('RENAME', beside, members)
    redis.call('PERSIST', members)
    redis.call('SETBIT', KEYS[2], bucket, 1)
  end
end
if added ~= removed then redis.call('INCRBY', KEYS[1], added - removed) end
if tonumber(redis.call('GET', KEYS[1]) or 0) == 0 then redis.call('DEL', KEYS[1], KEYS[2]) end
return { added, removed }
