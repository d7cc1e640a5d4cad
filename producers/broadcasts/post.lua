#!lua
-- post: put one single message into the queue of the first carrier that has no message of its user.
--
-- Guarantee: a key posts one message, so the same call again is harmless; a carrier holds one message
-- per user at most, so that all that holds for a broadcast's recipients holds for it. If the process
-- dies just after it, the message is on its way.
--
-- KEYS  1 posted string (this key's message)
-- Found on the way, with the lane's hash tag: lane:ID, queue:ID, mail:ID, recipients:ID,
-- outcomes:ID:BUCKET, first:APP, busy (see keys.py)
-- ARGV  1 now_ms or '', 2 prefix of the lane, 3 item (bucket:openid), 4 payload, 5 life_ms,
--       6 ttl_ms of outcomes, 7 key_ttl_ms, 8 digest of the content, 9 app,
--       then carrier ids in their order
-- Returns  {'new' or 'known' (posted before), carrier}, {'other', carrier} (the key posted other
--       content), {'absent', carrier} (create it and ask again), {'stopped', carrier, errcode} (WeChat
--       refuses the template) or {'full', ''} (they all hold one)
--@include store/clock
--@include store/check
--@include lanes/ring
--@include lanes/need
local now = clock(ARGV[1])
local posted, app = KEYS[1], ARGV[9]
local prefix, item, payload = ARGV[2], ARGV[3], ARGV[4]
local life, ttl = whole('life_ms', ARGV[5], 0, 2 ^ 42), whole('ttl_ms', ARGV[6], 1, 2 ^ 42)
whole('ttl_ms of the key', ARGV[7], 1, 2 ^ 42)
local bucket, openid = string.match(item, '^(%d+):(.*)$')
whole('bucket', bucket, 0, 2 ^ 20)
rings_are_sound(prefix, app)

local known = redis.call('GET', posted)
if known then
  local carrier, digest = string.match(known, '^(%S+) (%S+)$')
  return { digest == ARGV[8] and 'known' or 'other', carrier }
end

local function is_free(id)
  return redis.call('HEXISTS', prefix .. 'mail:' .. id, item) == 0
    and redis.call('HEXISTS', prefix .. 'outcomes:' .. id .. ':' .. bucket, openid) == 0
end

local function put(id, lane, state)
  local mail, queue, recipients =
    prefix .. 'mail:' .. id, prefix .. 'queue:' .. id, prefix .. 'recipients:' .. id
  redis.call('HSET', mail, item, string.format('%d %s', now + life, payload))
  redis.call('RPUSH', queue, item)
  bump(lane, 'total', 1)
  redis.call('SETBIT', recipients, bucket, 1)
  redis.call('PEXPIRE', mail, ttl)
  redis.call('PEXPIRE', queue, ttl)
  redis.call('PEXPIRE', recipients, math.max(redis.call('PTTL', lane), 0) + 604800000)
  redis.call('SET', posted, id .. ' ' .. ARGV[8], 'PX', ARGV[7])
  if state == 'running' and join_ring(prefix, app, id, 1) then wake(prefix, app) end
end

for i = 10, #ARGV do
  local id, lane = ARGV[i], prefix .. 'lane:' .. ARGV[i]
  local has = redis.call('HMGET', lane, 'state', 'drop', 'verdict', 'errcode', 'open')
  if not has[1] then return { 'absent', id } end
  local errcode = string.match(has[3] or '', '(%-?%d+)$') or has[1] == 'paused' and has[4] or '0'
  if errcode ~= '0' and errcode ~= '' then return { 'stopped', id, errcode } end
  local takes = (has[1] == 'running' or has[1] == 'paused') and has[2] == ''
  if takes and is_free(id) then
    typed('list', prefix .. 'queue:' .. id)
    typed('string', prefix .. 'recipients:' .. id)
    put(id, lane, has[1])
    if has[5] ~= '1' then need(prefix, id, now) end  -- it may wait for a canary
    return { 'new', id }
  end
end
return { 'full', '' }
