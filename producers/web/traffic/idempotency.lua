-- idempotency: put something else where this request's claim is, if it is still there.
--
-- Guarantee: whoever lost the claim (its lease ended, another took it) changes nothing. A second
-- run after a lost reply finds the new value and changes nothing either.
--
-- KEYS  1 answer  string  the claim
-- ARGV  1 claim, 2 kept: what replaces it ('' = nothing: the key is free again), 3 ttl_ms
-- Returns  1 replaced, 0 not
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
