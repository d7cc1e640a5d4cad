-- release: give up a lease, if it is still one's own.
--
-- KEYS  1 lease  string  its holder
-- ARGV  1 holder
-- Returns  1 given up, 0 somebody else holds it by now
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
