#!lua flags=allow-oom
-- landed: a broadcast of which nothing is in flight in this lane is looked at no more.
--
-- KEYS  1 flying set, 2 flight hash of the broadcast
-- ARGV  1 broadcast id
-- Returns  1 removed, 0 something is in flight
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
return redis.call('SREM', KEYS[1], ARGV[1])
