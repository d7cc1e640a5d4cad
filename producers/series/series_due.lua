#!lua flags=allow-oom
-- series_due: give out the series whose tick has come.
--
-- Guarantee: each comes again after again_ms unless series_ran.lua was told what its tick made, so that
-- whoever dies with it delays it and loses nothing.
--
-- KEYS  1 due zset
-- ARGV  1 now_ms or '', 2 most, 3 again_ms
-- Returns  {now_ms, member of due …}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local most, again = whole('most', ARGV[2], 1, 1000), whole('again_ms', ARGV[3], 1, 2 ^ 32)
local rows = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, most)
for _, member in ipairs(rows) do redis.call('ZADD', KEYS[1], now + again, member) end
table.insert(rows, 1, string.format('%d', now))
return rows
