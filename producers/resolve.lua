-- resolve: an operator's decision on recipients in doubt of one broadcast in one lane.
--
-- Guarantee: each moves once, from in_doubt to the outcome given; run again it finds nothing.
--
-- KEYS  1 lane hash, 2 doubts hash
-- ARGV  1 lane prefix, 2 broadcast id, 3 outcome (delivered or failed), then items
-- Returns  how many moved
local moved = 0
for i = 4, #ARGV do
  if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then
    local bucket, openid = string.match(ARGV[i], '^(%d+):(.*)$')
    redis.call('HSET', ARGV[1] .. 'outcomes:' .. ARGV[2] .. ':' .. bucket, openid,
      ARGV[3] .. ' operator')
    moved = moved + 1
  end
end
if moved > 0 then
  redis.call('HINCRBY', KEYS[1], 'o:in_doubt', -moved)
  redis.call('HINCRBY', KEYS[1], 'o:' .. ARGV[3], moved)
end
return moved
