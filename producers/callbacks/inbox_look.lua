-- inbox_look: the oldest pushes that wait, for the one who has the lease; they stay where they are.
--
-- Guarantee: at a time one owner looks; a lease that is held by another shows an empty inbox. The
-- same owner again looks again, and has the lease for as long anew.
--
-- KEYS  1 inbox  list    `arrived_ms push`, the oldest left
--       2 lease  string  its owner
-- ARGV  1 owner, 2 lease_ms, 3 most (pushes)
-- Returns  the pushes
--@include store/check
local lease_ms, most = whole('lease_ms', ARGV[2], 1, 2 ^ 42), whole('most', ARGV[3], 1, 2 ^ 32)
typed('list', KEYS[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[1] then return {} end
redis.call('SET', KEYS[2], ARGV[1], 'PX', lease_ms)
return redis.call('LRANGE', KEYS[1], 0, most - 1)
