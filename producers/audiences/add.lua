#!lua
-- audience_add: put openids of one lane into an audience. Adding one twice changes nothing.
--
-- KEYS  1 size     string  members of the audience in this lane
--       2 buckets  bitmap  its non-empty buckets
--       then per bucket: members set
-- ARGV  1 ttl_ms of what is touched; '': for good
--       then per bucket: bucket number, openids (count), the openids
-- Returns  how many were new
--@include store/check
local ttl_ms, added, arg = ARGV[1], 0, 2
audience_is_sound(KEYS)
if ttl_ms ~= '' then whole('ttl_ms', ttl_ms, 1, 2 ^ 42) end
for _ = 3, #KEYS do
  whole('bucket', ARGV[arg], 0, 2 ^ 20)
  arg = arg + 2 + whole('openids', ARGV[arg + 1], 0, #ARGV - arg - 1)
end
if arg ~= #ARGV + 1 then refuse('arguments', #ARGV) end
arg = 2
for key = 3, #KEYS do
  local bucket, count = ARGV[arg], tonumber(ARGV[arg + 1])
  arg = arg + 2
  for _ = 1, count do
    added = added + redis.call('SADD', KEYS[key], ARGV[arg])
    arg = arg + 1
  end
  redis.call('SETBIT', KEYS[2], bucket, 1)
end
if added > 0 then redis.call('INCRBY', KEYS[1], added) end
if ttl_ms ~= '' then
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ttl_ms) end
end
return added
