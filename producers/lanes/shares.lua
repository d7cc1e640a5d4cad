-- shares: the turns of an app's broadcasts in a lane, when they do not all weigh the same.
--   shares  hash  broadcast -> its weight, of each running one whose weight is not 1; more: what all of
--                 these are above 1; round: "goal step" of the one that goes on. Nothing, where all
--                 weigh the same. (An id is 21 characters, so none is one of these names.)
--   lane    hash  weight, while it is among these; turn: how far it came, in claims divided by its weight
--
-- In a round each broadcast may come as far as the goal, so it gets claims by its weight. Broadcasts
-- have their turns one behind the other: when one comes that is at the goal already, so are all the
-- others, or they could not be; the next round's goal lies a step further. All of it is kept, so takes
-- of one message share as exactly as takes of a thousand. What a broadcast could have used in its
-- round and did not is gone: the others went on, nobody saves up, and nobody waits longer than a round.
--@include store/check
local MOST_WEIGHT = 100

-- What a lane must know of a broadcast's weight. It has none while it does not run.
local function set_share(prefix, app, id, weight, ttl)
  local shares, lane = prefix .. 'shares:' .. app, prefix .. 'lane:' .. id
  local before = redis.call('HGET', shares, id)
  if weight ~= 1 then
    redis.call('HSET', shares, id, weight)
    redis.call('HSET', lane, 'weight', weight)
  elseif before then
    redis.call('HDEL', shares, id)
    redis.call('HDEL', lane, 'weight')
  else
    return
  end
  bump(shares, 'more', weight - math.max(1, num(before)))
  if num(redis.call('HGET', shares, 'more')) <= 0 then return redis.call('UNLINK', shares) end
  redis.call('PEXPIRE', shares, ttl)
end

-- length: how many stand in the ring. Returns nothing where all weigh the same.
local function shares_of(prefix, app, length)
  local key = prefix .. 'shares:' .. app
  local has = redis.pcall('HMGET', key, 'more', 'round')
  if has.err or not has[1] then return end
  local goal, step = string.match(has[2] or '', '^(%S+) (%S+)$')
  return { key = key, lane = prefix .. 'lane:', all = length + math.max(0, num(has[1])),
           goal = num(goal), step = num(step) }
end

local CLOSE = 1e-6  -- what is written has nine decimals

-- How many claims a broadcast may have in the turn that begins. left: how many the take has left.
local function turn_of(shares, id, left)
  local has = redis.pcall('HMGET', shares.lane .. id, 'weight', 'turn')
  if has.err then has = {} end
  local weight, at = math.max(1, math.min(num(has[1]), MOST_WEIGHT)), num(has[2])
  -- what was less than a claim is not lost
  at = math.max(shares.goal - shares.step - 1 / weight, math.min(at, shares.goal))
  local claims = math.floor((shares.goal - at) * weight + CLOSE)
  if claims < 1 then
    shares.step = math.max(1, left / shares.all)
    shares.goal, shares.moved = shares.goal + shares.step, true
    claims = math.floor((shares.goal - at) * weight + CLOSE)
  end
  shares.at, shares.weight = at, weight
  return claims
end

-- How many it had.
local function end_turn(shares, id, claims)
  if claims == 0 then return end
  redis.call('HSET', shares.lane .. id, 'turn', string.format('%.9f', shares.at + claims / shares.weight))
end

local function keep_round(shares)
  if shares.moved then
    redis.call('HSET', shares.key, 'round', string.format('%.9f %.9f', shares.goal, shares.step))
  end
end
