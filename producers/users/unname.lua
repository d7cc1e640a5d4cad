#!lua flags=allow-oom
-- unname: one user is no longer known by name among the recipients of some broadcasts in one lane.
--
-- Guarantee: counts stay what they are (I2): a recorded outcome stays, under a name that says
-- nothing, another one in each broadcast. A message that waits is dropped and counted as cancelled;
-- one that waits resumed, or was set aside, was perhaps sent: in_doubt. One in a worker's hands goes
-- its way, is never repeated, and its outcome will be written without the openid (flight.lua). Run
-- again it finds nothing. It stops early where the queues that it has to search are long.
--
-- KEYS  1 stock hash, 2 ledger hash, 3 sending zset, 4 leaving hash
-- Found on the way: lane:ID, queue:ID, delayed:ID, flight:ID, tries:ID, suspects:ID, doubts:ID,
-- mail:ID, outcomes:ID:BUCKET, msgids:ID:BUCKET, hurried:ID:BUCKET, soon:ID:SLOT (see keys.py)
-- ARGV  1 now_ms or '', 2 prefix of the lane, 3 app, 4 item (bucket:openid), 5 seed of the names
--       (random, kept nowhere), 6 ttl_ms of outcomes, 7 leaving_ttl_ms, then broadcast ids
-- Returns  {broadcasts looked at (the first ones, at least one), outcomes without a name now, messages
--       dropped, in doubt, in hands}
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/need
--@include lanes/outcome
--@include ordering/hurried
local now = clock(ARGV[1])
local stock, ledger, sending, leaving = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, app, item, seed, ttl, leaving_ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local books = open_books(now, 0, stock, ledger)
local here = { prefix = prefix, app = app, now = now, ttl = ttl, sending = sending, lease = 0,
  books = books }
local bucket, openid = bucket_and_openid(item)
local unnamed, dropped, doubted, in_hands = 0, 0, 0, 0

local function forget_suspect(id)
  local suspects = prefix .. 'suspects:' .. id
  for _, suspect in ipairs(redis.call('LRANGE', suspects, 0, -1)) do
    if string.match(suspect, '^(%S+)') == openid then redis.call('LREM', suspects, 0, suspect) end
  end
end

-- Perhaps sent, and nobody's hands hold it.
local function end_resumed(id, lane, held)
  doubt(here, id, item, held)
  doubted = doubted + 1
  redis.call('PEXPIRE', lane, ttl)
  need(prefix, id, now)
  if held.worker == 'aside' then
    bump(lane, 'aside', -1)
  else  -- it held its place before the first delivery
    local has = redis.call('HMGET', lane, 'open', 'unjudged', 'sweeping')
    if has[1] ~= '1' and (tonumber(has[2] or 0) or 0) > 0 then bump(lane, 'unjudged', -1) end
    if has[3] then bump(lane, 'swept', 1) end  -- it waited when the broadcast was dropped (sweep.lua)
  end
end

if not bucket then refuse('item', item) end
whole('ttl_ms', ttl, 1, 2 ^ 42)
whole('ttl_ms', leaving_ttl, 1, 2 ^ 42)
typed('hash', leaving)
typed('zset', sending)
for i = 8, #ARGV do
  local id = ARGV[i]
  typed('list', prefix .. 'queue:' .. id, prefix .. 'suspects:' .. id)
  typed('zset', prefix .. 'delayed:' .. id)
  typed('hash', hurried_of(prefix, id, bucket))
  typed('hash', prefix .. 'lane:' .. id, prefix .. 'flight:' .. id, prefix .. 'tries:' .. id,
    prefix .. 'mail:' .. id, prefix .. 'doubts:' .. id, prefix .. 'outcomes:' .. id .. ':' .. bucket,
    prefix .. 'msgids:' .. id .. ':' .. bucket)
end

-- Who waits in a slot is not counted anywhere yet, and is not sent to.
local function forget_hurried(id, lane)
  local hurried = hurried_of(prefix, id, bucket)
  local slot = redis.call('HGET', hurried, openid)
  if not slot then return end
  redis.call('HDEL', hurried, openid)
  local waited = redis.pcall('LREM', soon_of(prefix, id, num(slot)), 0, item)
  if type(waited) == 'number' and waited > 0 then bump(lane, 'hurried', -waited) end
end

local SEARCHED = 100000  -- queued messages that one script searches: about a millisecond
local looked, searched = 0, 0
for i = 8, #ARGV do
  local id = ARGV[i]
  searched = searched + redis.call('LLEN', prefix .. 'queue:' .. id)
  if looked > 0 and searched > SEARCHED then break end
  looked = looked + 1
  local lane, flight = prefix .. 'lane:' .. id, prefix .. 'flight:' .. id
  local outcomes = prefix .. 'outcomes:' .. id .. ':' .. bucket
  local name = '~' .. string.sub(redis.sha1hex(seed .. id), 1, 16)
  local entry = redis.call('HGET', flight, item)
  local held = entry and read_flight(entry)
  if held and held.worker ~= '-' and held.worker ~= 'aside' then
    in_hands = in_hands + 1
    redis.call('HSET', leaving, id .. ' ' .. item, name)
    redis.call('PEXPIRE', leaving, leaving_ttl)
  else
    local waited = redis.call('LREM', prefix .. 'queue:' .. id, 0, item)
      + redis.call('ZREM', prefix .. 'delayed:' .. id, item)
    redis.call('HDEL', prefix .. 'tries:' .. id, item)
    redis.call('HDEL', prefix .. 'mail:' .. id, item)
    if held then
      end_resumed(id, lane, held)
    elseif waited > 0 and redis.call('HEXISTS', outcomes, openid) == 0 then
      dropped = dropped + 1
      bump(lane, 'o:cancelled', 1)
      bump(lane, 'done', 1)
      redis.call('PEXPIRE', lane, ttl)
      need(prefix, id, now)
    end
  end
  local outcome = redis.call('HGET', outcomes, openid)
  if outcome then
    redis.call('HSET', outcomes, name, outcome)  -- before the other goes: the key keeps its end
    redis.call('HDEL', outcomes, openid)
    unnamed = unnamed + 1
  end
  redis.call('HDEL', prefix .. 'msgids:' .. id .. ':' .. bucket, openid)
  redis.call('HDEL', prefix .. 'doubts:' .. id, item)
  forget_suspect(id)
  forget_hurried(id, lane)
end
return { looked, unnamed, dropped, doubted, in_hands }
