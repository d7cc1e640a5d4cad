#!lua flags=allow-oom
-- hold: take or keep a lease.
--
-- Guarantee: nobody else's lease is touched, whenever it ends.
--
-- KEYS  1 lease  string  its holder
-- ARGV  1 who asks, 2 life (ms)
-- Returns  1 it is the asker's for so long, 0 somebody else holds it
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
