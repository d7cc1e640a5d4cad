-- inbox_done: remove pushes that were acted on; an owner with nothing left gives the lease back.
--
-- Guarantee: removes by content, one each, so that the same call again removes nothing else, nor
-- does a call of one whose lease ended meanwhile.
--
-- KEYS  1 inbox  list    `arrived_ms push`, the oldest left
--       2 lease  string  its owner
-- ARGV  1 owner, then the pushes
-- Returns  how many were removed
--@include store/check
local removed = 0
typed('list', KEYS[1])
typed('string', KEYS[2])
for i = 2, #ARGV do removed = removed + redis.call('LREM', KEYS[1], 1, ARGV[i]) end
if redis.call('EXISTS', KEYS[1]) == 0 and redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[2])
end
return removed
