-- beat: this worker lives; and who else does.
--
-- KEYS  1 workers zset  worker -> last beat (ms)
-- ARGV  1 unused, 2 now_ms or '', 3 worker, 4 a dead worker to remove or '', 5 its last beat
-- Returns  now_ms, then worker, last beat …
--@include clock
if ARGV[4] ~= '' then
  local last = redis.call('ZSCORE', KEYS[1], ARGV[4])
  if last and tonumber(last) == tonumber(ARGV[5]) then redis.call('ZREM', KEYS[1], ARGV[4]) end
end
redis.call('ZADD', KEYS[1], now, ARGV[3])
local peers = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
table.insert(peers, 1, string.format('%d', now))
return peers
