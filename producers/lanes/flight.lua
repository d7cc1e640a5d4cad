-- flight: the entry of a message that may be unanswered, and what happens when it stays so.
--   flight  hash  bucket:openid -> worker fence member expires_at_ms since_ms tries resumed
-- resumed: 1 when an earlier attempt may have arrived; n while a permit that is no idempotency key
-- (all but form_ids) is claimed and surely not posted yet (posting.lua), else 0
-- worker is '-' while a resumed message waits in the queue or the delayed ones, and 'aside' when it
-- was set aside, having outlived its workers too often: it waits for an operator.
--   doubts    hash  bucket:openid -> since_ms until_ms member, of each in_doubt recipient
--   receipts  hash  template msgid -> errcode at_ms, of one user: they came before the answer
--   leaving   hash  broadcast item -> the name that a forgotten recipient's outcome is written under
-- Expects check.lua's and permit.lua's functions, now, sending (key name), lease (ms, of one user's turn).
local UNPOSTED = 'n'
local function as_claimed(member) return kind_of(member) == 'f' and '0' or UNPOSTED end

local function read_flight(value)
  local worker, fence, member, expires, since, tries, resumed =
    string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  expires, since, tries = tonumber(expires), tonumber(since), tonumber(tries)
  if not expires or not since or not tries then return end  -- somebody wrote into it
  return { worker = worker, fence = fence, member = member, expires = expires, since = since,
           tries = tries, resumed = resumed }
end

-- Whether the keys that a broadcast's messages lie in are what they should be; the lane hash is read
-- anyway. Nothing here fails on what else may be spoiled: it is not written then.
local function is_sound(prefix, id)
  return is_a('hash', prefix .. 'flight:' .. id) and is_a('list', prefix .. 'queue:' .. id)
    and is_a('zset', prefix .. 'delayed:' .. id) and is_a('hash', prefix .. 'tries:' .. id)
end

local function write_flight(flight, item, worker, fence, member, expires, since, tries, resumed)
  redis.call('HSET', flight, item, string.format('%s %s %s %d %d %d %s',
    worker, fence, member, expires, since, tries, resumed))
end

local PAGE = 100  -- entries that one script looks at: what each costs keeps the whole below 5 ms

-- One page of the entries' items; returns the next cursor, '0' after the last page. What one page
-- changes may come again in it: look at each as it is now, by held_as.
local function page_of(flight, cursor)
  local found = redis.call('HSCAN', flight, cursor, 'COUNT', PAGE)
  local items = {}
  for i = 1, #found[2], 2 do items[#items + 1] = found[2][i] end
  return found[1], items
end

local function held_as(flight, item)
  local entry = redis.call('HGET', flight, item)
  return entry and read_flight(entry)
end

-- A carrier's id begins with m: it carries single messages, each with a payload of its own.
local function is_carrier(id) return string.byte(id) == 109 end

local function bucket_and_openid(item) return string.match(item, '^(%d+):(.*)$') end

-- The name that says nothing, of a recipient who was forgotten while this message was in somebody's
-- hands (unname.lua); nothing for all others.
local anybody_leaves
local function left_as(prefix, id, item)
  if anybody_leaves == nil then
    anybody_leaves = num(redis.pcall('HLEN', prefix .. 'leaving')) > 0
  end
  return anybody_leaves and redis.call('HGET', prefix .. 'leaving', id .. ' ' .. item) or nil
end

local kept = {}  -- outcome keys whose TTL this script has looked after

-- Returns the name under which it was written.
local function write_outcome(prefix, id, item, value, ttl)
  local bucket, openid = bucket_and_openid(item)
  local key = prefix .. 'outcomes:' .. id .. ':' .. bucket
  local name = left_as(prefix, id, item)
  if name then
    redis.call('HDEL', prefix .. 'leaving', id .. ' ' .. item)
    redis.pcall('HDEL', prefix .. 'doubts:' .. id, item)
    redis.call('HDEL', prefix .. 'tries:' .. id, item)
  end
  redis.pcall('HSET', key, name or openid, value)
  if not kept[key] then
    kept[key] = true
    if redis.pcall('HLEN', key) == 1 then redis.call('PEXPIRE', key, ttl) end
  end
  if is_carrier(id) then redis.pcall('HDEL', prefix .. 'mail:' .. id, item) end
  return name or openid
end

-- This message's turn with its user ends; not the turn of another message that came after it.
local function end_lease(openid, held)
  if held.worker == '-' or held.worker == 'aside' then return end
  if tonumber(redis.call('ZSCORE', sending, openid) or 0) == held.since + lease then
    redis.call('ZREM', sending, openid)
  end
end

local CLOCKS = 5000  -- WeChat's clock and ours may differ by so many ms

-- The receipt of this user and template that came within the attempt's time, if it is the only one
-- and nobody else may have caused it: its errcode and msgid. It is used up.
local function early_receipt(prefix, app, openid, held)
  if kind_of(held.member) ~= 's' then return end
  local receipts = prefix .. 'receipts:' .. app .. ':' .. openid
  local template, only, errcode = string.sub(held.member, 3), nil, nil
  local found = redis.pcall('HGETALL', receipts)
  if #found == 0 then return end
  local turn = num(redis.call('ZSCORE', sending, openid))
  if turn > now and turn ~= held.since + lease then return end  -- another message is being sent
  for i = 1, #found, 2 do
    local of, msgid = string.match(found[i], '^(%S+) (%S*)$')
    local code, at, unsure = string.match(found[i + 1], '^(%S+) (%d+)(.*)$')
    at = tonumber(at)
    if of == template and at and at >= held.since - CLOCKS and at <= now + CLOCKS then
      if only or unsure ~= '' then return end
      only, errcode = msgid, code
    end
  end
  if only then redis.call('HDEL', receipts, template .. ' ' .. only) end
  return errcode, only
end

-- What a receipt makes of a message, and how that is recorded: a failure with its errcode.
local function by_receipt(errcode)
  if errcode == '0' then return 'delivered', 'delivered' end
  return 'failed', 'failed ' .. errcode .. ' receipt'
end

-- What an unanswered message ends as: in_doubt, listed with its time, unless its receipt is here; and
-- how that is recorded.
local function doubtful_outcome(prefix, app, id, item, held, ttl)
  local bucket, openid = bucket_and_openid(item)
  local errcode, msgid = early_receipt(prefix, app, openid, held)
  if errcode then
    if msgid ~= '' and not left_as(prefix, id, item) then  -- the same receipt again is known by it
      local msgids = prefix .. 'msgids:' .. id .. ':' .. bucket
      redis.pcall('HSET', msgids, openid, msgid)
      redis.call('PEXPIRE', msgids, 86400000)
    end
    return by_receipt(errcode)
  end
  local doubts = prefix .. 'doubts:' .. id
  redis.pcall('HSET', doubts, item, string.format('%d %d %s', held.since, now, held.member))
  redis.call('PEXPIRE', doubts, ttl)
  return 'in_doubt', 'in_doubt'
end

-- Perhaps sent, and never to be known from here: in_doubt, the permit counted as spent.
local function doubt(prefix, app, id, lane, flight, item, held, ttl)
  local _, openid = bucket_and_openid(item)
  local outcome, recorded = doubtful_outcome(prefix, app, id, item, held, ttl)
  write_outcome(prefix, id, item, recorded, ttl)
  count_use(held.member, held.expires, 'spent')
  redis.call('HDEL', flight, item)
  end_lease(openid, held)
  bump(lane, 'o:' .. outcome, 1)
  bump(lane, 'done', 1)
end
