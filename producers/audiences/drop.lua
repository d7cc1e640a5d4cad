#!lua flags=allow-oom
-- audience_drop: empty some buckets of an audience in one lane: a step of its deletion.
--
-- Guarantee: size and bitmap say exactly what the sets hold, after each step. Run again it finds
-- nothing. When nothing is left, size and bitmap go too.
--
-- KEYS  1 size string, 2 buckets bitmap, then members sets
-- ARGV  the bucket number of each set
-- Returns  how many members there were
--@include store/check
local removed = 0
audience_is_sound(KEYS)
for key = 3, #KEYS do whole('bucket', ARGV[key - 2], 0, 2 ^ 20) end
for key = 3, #KEYS do
  removed = removed + redis.call('SCARD', KEYS[key])
  redis.call('UNLINK', KEYS[key])
  redis.call('SETBIT', KEYS[2], ARGV[key - 2], 0)
end
if removed > 0 then redis.call('DECRBY', KEYS[1], removed) end
if tonumber(redis.call('GET', KEYS[1]) or 0) == 0 then redis.call('DEL', KEYS[1], KEYS[2]) end
return removed
