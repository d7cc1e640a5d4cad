-- receipt: WeChat's final word on one send (subscribe_msg_sent_event), matched to its recipient.
--
-- Guarantee: a msgid that an answer gave, or a receipt left, decides alone, whatever else fits by
-- time. Only a msgid that fits nothing is matched by time: to the one message of its template that may
-- be meant, in doubt and sent then; to none where more may be: unanswered ones, doubts of the last day,
-- those that were delivered without a msgid or decided. An outcome moves at most once by receipt:
-- in_doubt to delivered or failed, delivered to failed. The same receipt again changes nothing. One that
-- finds no recipient yet (it may come before the send's own answer) is kept for a day, at most 50 per
-- user, with the one message that was unanswered then: whatever is sent later cannot be meant.
--
-- KEYS  1 receipts hash  of the user
-- ARGV  1 prefix of the lane, 2 item (bucket:openid), 3 template, 4 msgid or '', 5 errcode, 6 at_ms,
--       7 ttl_ms of outcomes, then candidate broadcasts, the newest first
-- Returns  {broadcast or '', what: delivered, failed, confirmed (nothing to change) or kept}
--@include store/check
local prefix, item, template, msgid, errcode = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local at = whole('at_ms', ARGV[6], 0, 2 ^ 53)
local DAY, CLOCKS, KEPT = 86400000, 5000, 50
local bucket, openid = string.match(item, '^(%d+):(.+)$')
if not bucket then refuse('item', item) end
local word = errcode == '0' and 'delivered' or 'failed'
local recorded = word == 'failed' and 'failed ' .. errcode .. ' receipt' or 'delivered receipt'
redis.call('HLEN', KEYS[1])

local function outcome_of(id)
  return redis.call('HGET', prefix .. 'outcomes:' .. id .. ':' .. bucket, openid)
end

local function msgid_of(id)
  return redis.call('HGET', prefix .. 'msgids:' .. id .. ':' .. bucket, openid)
end

-- Delivered by an answer that gave no msgid, or decided by an operator: its receipt may come at any time.
local function is_nameless(id)
  local outcome = outcome_of(id) or ''
  if string.sub(outcome, -9) ~= ' operator' and not (outcome == 'delivered'
    and redis.call('HGET', prefix .. 'lane:' .. id, 'nameless') == '1') then return false end
  return not msgid_of(id)
end

local function move(id, from)
  local lane = prefix .. 'lane:' .. id
  local is_there = redis.call('HEXISTS', lane, 'state') == 1  -- or its retention is over
  redis.call('HSET', prefix .. 'outcomes:' .. id .. ':' .. bucket, openid, recorded)
  redis.call('HDEL', prefix .. 'doubts:' .. id, item)
  if is_there then
    bump(lane, 'o:' .. from, -1)
    bump(lane, 'o:' .. word, 1)
  end
  if msgid ~= '' then
    local msgids = prefix .. 'msgids:' .. id .. ':' .. bucket
    redis.call('HSET', msgids, openid, msgid)
    redis.call('PEXPIRE', msgids, DAY)
  end
  return { id, word }
end

if msgid ~= '' then
  for i = 8, #ARGV do
    if msgid_of(ARGV[i]) == msgid then
      redis.call('HLEN', prefix .. 'doubts:' .. ARGV[i])
      if outcome_of(ARGV[i]) == 'delivered' and word == 'failed' then
        return move(ARGV[i], 'delivered')
      end
      return { ARGV[i], 'confirmed' }
    end
  end
end

-- By time: all messages that may be meant. The receipt may come late, so a doubt that is over counts.
local may, meant, state = 0, '-', ''
for i = 8, #ARGV do
  local id = ARGV[i]
  local held = redis.call('HGET', prefix .. 'flight:' .. id, item)
  local member, since = string.match(held or '', '^%S+ %S+ (%S+) %S+ (%d+) ')
  local until_ms
  if not member and is_nameless(id) then
    may = may + 1
  elseif not member then
    local doubt = redis.call('HGET', prefix .. 'doubts:' .. id, item)
    since, until_ms, member = string.match(doubt or '', '^(%d+) (%d+) (%S+)$')
    if msgid_of(id) or not outcome_of(id) then member = nil end
  end
  if member == 's:' .. template and at >= tonumber(since) - CLOCKS
    and not (until_ms and at > tonumber(until_ms) + DAY) then
    state = not until_ms and 'unanswered' or at <= tonumber(until_ms) + CLOCKS and 'in_doubt' or 'over'
    may, meant = may + 1, id
  end
end
if may == 1 and state == 'in_doubt' then return move(meant, 'in_doubt') end
if redis.call('HLEN', KEYS[1]) < KEPT then
  -- one that several may have caused, or none that is sent now, is matched by its msgid alone
  if may > 1 or state ~= 'unanswered' then meant = '-' end
  redis.call('HSET', KEYS[1], template .. ' ' .. msgid, string.format('%s %d %s', errcode, at, meant))
  redis.call('PEXPIRE', KEYS[1], DAY)
end
return { '', 'kept' }
