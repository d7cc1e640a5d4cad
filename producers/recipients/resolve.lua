-- resolve: an operator's decision on recipients in doubt of one broadcast in one lane.
--
-- Guarantee: each moves once, from in_doubt to the outcome given; run again it finds nothing. What has
-- ended meanwhile (its retention is over) is not brought back.
--
-- KEYS  1 lane hash, 2 doubts hash
-- ARGV  1 prefix of the lane, 2 broadcast, 3 outcome (delivered or failed), then items
-- Returns  how many moved
--@include store/check
local lane, doubts, prefix, id, outcome = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if outcome ~= 'delivered' and outcome ~= 'failed' then refuse('outcome', outcome) end
local is_there = redis.call('HEXISTS', lane, 'state') == 1
local found = {}
for i = 4, #ARGV do
  local bucket, openid = string.match(ARGV[i], '^(%d+):(.+)$')
  if not bucket then refuse('item', ARGV[i]) end
  local outcomes = prefix .. 'outcomes:' .. id .. ':' .. bucket
  local is_doubt = redis.call('HEXISTS', doubts, ARGV[i]) == 1
  local now_is = redis.call('HGET', outcomes, openid)
  found[i] = is_doubt and { outcomes, openid, string.match(now_is or '', '^in_doubt') } or nil
end
local moved = 0
for i, one in pairs(found) do
  if redis.call('HDEL', doubts, ARGV[i]) == 1 and one[3] then
    redis.call('HSET', one[1], one[2], outcome .. ' operator')
    moved = moved + 1
  end
end
if moved > 0 and is_there then
  bump(lane, 'o:in_doubt', -moved)
  bump(lane, 'o:' .. outcome, moved)
end
return moved
