#!lua flags=allow-oom
-- done: what keep.lua gave to the keeper was done.
--
-- Guarantee: what was given anew meanwhile, to whomever, stays.
--
-- KEYS  1 doing zset
-- ARGV  member, until_ms (as given), …
-- Returns  how many ended
local ended = 0
for i = 1, #ARGV, 2 do
  local given = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if given and tonumber(given) == tonumber(ARGV[i + 1]) then
    ended = ended + redis.call('ZREM', KEYS[1], ARGV[i])
  end
end
return ended
