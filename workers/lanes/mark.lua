-- mark: write fields into a lane's copy of a broadcast.
--
-- Guarantee: a lane that has no copy yet stays without one; it will adopt a whole one.
--
-- KEYS  1 lane hash
-- ARGV  field, value …
-- Returns  1 written, 0 there is no copy
if redis.call('HEXISTS', KEYS[1], 'generation') == 0 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
