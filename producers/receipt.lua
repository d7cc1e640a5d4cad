-- receipt: WeChat's final word on one send (subscribe_msg_sent_event), matched to its recipient.
--
-- Guarantee: an outcome moves at most once by receipt: in_doubt to delivered or failed, delivered to
-- failed. The same receipt again changes nothing. One that finds no recipient yet (it may come
-- before the send's own answer) is kept for a day, at most 50 per user.
--
-- KEYS  1 receipts hash  of the user
-- ARGV  1 unused, 2 now_ms or '', 3 lane prefix, 4 item (bucket:openid), 5 template_id, 6 msgid or
--       '', 7 errcode, 8 at_ms, 9 ttl of outcomes (ms), then candidate broadcasts, the newest first
-- Returns  {broadcast or '', what: delivered, failed, confirmed (nothing to change) or kept}
--@include clock
local prefix, item, template, msgid, errcode, at, ttl =
  ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9]
local DAY, CLOCKS, KEPT = 86400000, 5000, 50
local bucket, openid = string.match(item, '^(%d+):(.*)$')
local word = errcode == '0' and 'delivered' or 'failed'

local function move(id, from)
  local outcomes = prefix .. 'outcomes:' .. id .. ':' .. bucket
  redis.call('HSET', outcomes, openid, word .. ' receipt')
  redis.call('HINCRBY', prefix .. 'lane:' .. id, 'o:' .. from, -1)
  redis.call('HINCRBY', prefix .. 'lane:' .. id, 'o:' .. word, 1)
  if msgid ~= '' then
    local msgids = prefix .. 'msgids:' .. id .. ':' .. bucket
    redis.call('HSET', msgids, openid, msgid)
    redis.call('PEXPIRE', msgids, DAY)
  end
  return { id, word }
end

for i = 10, #ARGV do
  local id = ARGV[i]
  local outcome = redis.call('HGET', prefix .. 'outcomes:' .. id .. ':' .. bucket, openid)
  if outcome then
    local known = redis.call('HGET', prefix .. 'msgids:' .. id .. ':' .. bucket, openid)
    if known and known == msgid then
      if outcome == 'delivered' and word == 'failed' then return move(id, 'delivered') end
      return { id, 'confirmed' }
    end
    local doubts = prefix .. 'doubts:' .. id
    local doubt = redis.call('HGET', doubts, item)
    if doubt then
      local since, until_ms, member = string.match(doubt, '^(%S+) (%S+) (%S+)$')
      if member == 's:' .. template and at >= tonumber(since) - CLOCKS
        and at <= tonumber(until_ms) + CLOCKS then
        redis.call('HDEL', doubts, item)
        return move(id, 'in_doubt')
      end
    end
  end
end
if redis.call('HLEN', KEYS[1]) < KEPT then
  redis.call('HSET', KEYS[1], template .. ' ' .. msgid, string.format('%s %d', errcode, at))
  redis.call('PEXPIRE', KEYS[1], DAY)
end
return { '', 'kept' }
