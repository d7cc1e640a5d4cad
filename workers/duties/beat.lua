#!lua flags=allow-oom
-- beat: this worker lives; and who else does.
--
-- KEYS  1 workers zset  worker -> last beat (ms)
--       2 seen    hash  at_ms, resting (see keys.py)
-- ARGV  1 now_ms or '', 2 worker, then dead workers to remove, each with its last beat
-- Returns  now_ms, then worker, last beat …
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
typed('zset', KEYS[1])
typed('hash', KEYS[2])
if not ARGV[2] or #ARGV % 2 == 1 then refuse('arguments', #ARGV) end
for i = 3, #ARGV, 2 do
  local last = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if last and tonumber(last) == tonumber(ARGV[i + 1]) then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('HSET', KEYS[2], 'at_ms', now, 'resting', 0)
local peers = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
table.insert(peers, 1, string.format('%d', now))
return peers
