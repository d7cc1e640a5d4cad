#!lua flags=allow-oom
-- audience_drop: empty some buckets of an audience in one lane: a step of its deletion.
--
-- Guarantee: size and bitmap say exactly what the sets hold, after each step. Run again it finds
-- nothing. When nothing is left, size and bitmap go too. From its first step on, a broadcast whose
-- expression names the audience finds nobody more in this lane: where it was to leave the members out,
-- they would be sent to.
--
-- KEYS  1 size string, 2 buckets bitmap, 3 dropped string, then members sets
-- ARGV  1 ttl_ms of the mark that it was deleted, then the bucket number of each set
-- Returns  how many members there were
--@include store/check
local removed = 0
audience_is_sound({ KEYS[1], KEYS[2], unpack(KEYS, 4) })
whole('ttl_ms', ARGV[1], 1, 2 ^ 42)
for key = 4, #KEYS do whole('bucket', ARGV[key - 2], 0, 2 ^ 20) end
redis.call('SET', KEYS[3], '1', 'PX', ARGV[1])
for key = 4, #KEYS do
  removed = removed + redis.call('SCARD', KEYS[key])
  redis.call('UNLINK', KEYS[key])
  redis.call('SETBIT', KEYS[2], ARGV[key - 2], 0)
end
if removed > 0 then redis.call('DECRBY', KEYS[1], removed) end
if tonumber(redis.call('GET', KEYS[1]) or 0) == 0 then redis.call('DEL', KEYS[1], KEYS[2]) end
return removed
