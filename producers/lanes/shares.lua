-- shares: the turns of an app's broadcasts in a lane, when they do not all weigh the same.
--   shares  hash  broadcast -> its weight, of each running one whose weight is not 1; and '' ->
--                 "goal step" of the round that goes on. Nothing, where all weigh the same
--   lane    hash  turn: how far a broadcast came, in claims divided by its weight
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
  local shares = prefix .. 'shares:' .. app
  if weight ~= 1 then
    redis.call('HSET', shares, id, weight)
    redis.call('PEXPIRE', shares, ttl)
  elseif redis.call('HDEL', shares, id) == 1 and redis.call('HLEN', shares) == 1 then
    redis.call('HDEL', shares, '')
  end
end

-- length: how many stand in the ring. Returns nothing where all weigh the same.
local function shares_of(prefix, app, length)
  local key = prefix .. 'shares:' .. app
  local found = redis.pcall('HGETALL', key)
  if found.err or #found == 0 then return end
  local shares = { key = key, lane = prefix .. 'lane:', weights = {}, all = length, goal = 0, step = 0 }
  for i = 1, #found, 2 do
    if found[i] == '' then
      local goal, step = string.match(found[i + 1], '^(%S+) (%S+)$')
      shares.goal, shares.step = num(goal), num(step)
    else
      local weight = math.max(1, math.min(num(found[i + 1]), MOST_WEIGHT))
      shares.weights[found[i]] = weight
      shares.all = shares.all + weight - 1
    end
  end
  return shares
end

local CLOSE = 1e-6  -- what is written has nine decimals

-- How many claims a broadcast may have in the turn that begins. left: how many the take has left.
local function turn_of(shares, id, left)
  local weight = shares.weights[id] or 1
  local at = num(redis.pcall('HGET', shares.lane .. id, 'turn'))
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
    redis.call('HSET', shares.key, '', string.format('%.9f %.9f', shares.goal, shares.step))
  end
end
