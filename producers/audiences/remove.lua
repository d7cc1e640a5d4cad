#!lua flags=allow-oom
-- audience_remove: take openids of one lane out of an audience. Removing one twice changes nothing.
--
-- Guarantee: size and bitmap say exactly what the sets hold.
--
-- KEYS  1 size     string  members of the audience in this lane
--       2 buckets  bitmap  its non-empty buckets
--       then per bucket: members set
-- ARGV  per bucket: bucket number, openids (count), the openids
-- Returns  how many were members
--@include store/check
local removed, arg = 0, 1
audience_is_sound(KEYS)
for _ = 3, #KEYS do
  whole('bucket', ARGV[arg], 0, 2 ^ 20)
  arg = arg + 2 + whole('openids', ARGV[arg + 1], 0, #ARGV - arg - 1)
end
if arg ~= #ARGV + 1 then refuse('arguments', #ARGV) end
arg = 1
for key = 3, #KEYS do
  local bucket, count = ARGV[arg], tonumber(ARGV[arg + 1])
  arg = arg + 2
  for _ = 1, count do
    removed = removed + redis.call('SREM', KEYS[key], ARGV[arg])
    arg = arg + 1
  end
  if redis.call('EXISTS', KEYS[key]) == 0 and redis.call('GETBIT', KEYS[2], bucket) == 1 then
    redis.call('SETBIT', KEYS[2], bucket, 0)
  end
end
if removed > 0 then redis.call('DECRBY', KEYS[1], removed) end
return removed
