-- outcome: what a message ends as, when it was answered and when it stays unanswered.
--   outcomes  hash  openid -> outcome, of one bucket
--   doubts    hash  bucket:openid -> since_ms until_ms member, of each in_doubt recipient
--   receipts  hash  template msgid -> errcode at_ms broadcast, of one user: they came before the answer;
--                   broadcast: whose message alone was unanswered then, or -
--   leaving   hash  broadcast item -> the name that a forgotten recipient's outcome is written under
--   sending   zset  openid -> end of the user's turn (ms)
--
-- here: an app's messages in one lane, for one run of a script, and the first argument of whatever
-- writes: a table of prefix (of the lane), app, now (ms), ttl (of outcomes, ms), sending (key name),
-- lease (of one user's turn, ms) and books (permit.lua).
--@include store/check
--@include permits/permit
--@include lanes/flight
--@include webhooks/tell

-- The name that says nothing, of a recipient who was forgotten while this message was in somebody's
-- hands (unname.lua); nothing for all others.
local function left_as(here, id, item)
  if here.anybody_leaves == nil then
    here.anybody_leaves = num(redis.pcall('HLEN', here.prefix .. 'leaving')) > 0
  end
  return here.anybody_leaves and redis.call('HGET', here.prefix .. 'leaving', id .. ' ' .. item) or nil
end

-- What became of a single message is told, if its app wants it. The messages of a user keep their
-- order with each other, not with those of others: `x` and a digest say whose they are.
local function tell_settled(here, id, item, openid, value)
  here.teller = here.teller or teller_of(here.prefix, here.app, here.now)
  if is_told(here.teller, 'message.settled') then
    local of_user = id .. 'x' .. string.sub(redis.sha1hex(item), 1, 16)
    tell(here.teller, of_user, 'message.settled', openid .. ' ' .. value)
  end
end

-- Returns the name under which it was written.
local function write_outcome(here, id, item, value)
  local prefix = here.prefix
  local bucket, openid = bucket_and_openid(item)
  local key = prefix .. 'outcomes:' .. id .. ':' .. bucket
  local name = left_as(here, id, item)
  if name then
    redis.call('HDEL', prefix .. 'leaving', id .. ' ' .. item)
    redis.pcall('HDEL', prefix .. 'doubts:' .. id, item)
    redis.call('HDEL', prefix .. 'tries:' .. id, item)
  end
  redis.pcall('HSET', key, name or openid, value)
  here.kept = here.kept or {}
  if not here.kept[key] then
    here.kept[key] = true
    if redis.pcall('HLEN', key) == 1 then redis.call('PEXPIRE', key, here.ttl) end
  end
  if is_carrier(id) then
    redis.pcall('HDEL', prefix .. 'mail:' .. id, item)
    if not name then tell_settled(here, id, item, openid, value) end
  end
  return name or openid
end

-- This message's turn with its user ends; not the turn of another message that came after it.
local function end_lease(here, openid, held)
  if held.worker == '-' or held.worker == 'aside' then return end
  if tonumber(redis.call('ZSCORE', here.sending, openid) or 0) == held.since + here.lease then
    redis.call('ZREM', here.sending, openid)
  end
end

local CLOCKS = 5000  -- WeChat's clock and ours may differ by so many ms

-- The receipt of this user and template that came while this message alone was unanswered, if it is
-- the only one: its errcode and msgid. It is used up.
local function early_receipt(here, id, openid, held)
  if kind_of(held.member) ~= 's' then return end
  local receipts = here.prefix .. 'receipts:' .. here.app .. ':' .. openid
  local template, only, errcode = string.sub(held.member, 3), nil, nil
  local found = redis.pcall('HGETALL', receipts)
  for i = 1, #found, 2 do
    local of, msgid = string.match(found[i], '^(%S+) (%S*)$')
    local code, at, meant = string.match(found[i + 1], '^(%S+) (%d+) (%S+)$')
    at = tonumber(at)
    if of == template and meant == id and at >= held.since - CLOCKS and at <= here.now + CLOCKS then
      if only then return end
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

-- Lists who is in doubt: since when (ms), and by which permit.
local function write_doubt(here, id, item, since, member)
  local doubts = here.prefix .. 'doubts:' .. id
  redis.pcall('HSET', doubts, item, string.format('%d %d %s', since, here.now, member))
  redis.call('PEXPIRE', doubts, here.ttl)
end

-- What an unanswered message ends as: in_doubt, listed with its time, unless its receipt is here; and
-- how that is recorded.
local function doubtful_outcome(here, id, item, held)
  local bucket, openid = bucket_and_openid(item)
  local errcode, msgid = early_receipt(here, id, openid, held)
  if errcode then
    if msgid ~= '' and not left_as(here, id, item) then  -- the same receipt again is known by it
      local msgids = here.prefix .. 'msgids:' .. id .. ':' .. bucket
      redis.pcall('HSET', msgids, openid, msgid)
      redis.call('PEXPIRE', msgids, 86400000)
    end
    return by_receipt(errcode)
  end
  write_doubt(here, id, item, held.since, held.member)
  return 'in_doubt', 'in_doubt'
end

-- Perhaps sent, and never to be known from here: in_doubt, the permit counted as spent. Returns what
-- it ended as: its receipt may know.
local function doubt(here, id, item, held)
  local _, openid = bucket_and_openid(item)
  local lane = here.prefix .. 'lane:' .. id
  local outcome, recorded = doubtful_outcome(here, id, item, held)
  write_outcome(here, id, item, recorded)
  count_use(here.books, held.member, held.expires, 'spent')
  redis.call('HDEL', here.prefix .. 'flight:' .. id, item)
  end_lease(here, openid, held)
  bump(lane, 'o:' .. outcome, 1)
  bump(lane, 'done', 1)
  return outcome
end
