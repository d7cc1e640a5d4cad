-- collect: store the permits of up to a few hundred users of one lane and app.
--
-- Guarantee: the same permit twice is one permit, whatever became of the first; a subscription
-- item with a source id counts once. A user keeps at most `cap` available uses, the newest; of a
-- template, at most `cap` accepts. All users are stored, or (connection lost before) none.
--
-- KEYS  1 reply    string  see reply.lua
--       2 stock    hash    see permit.lua
--       3 ledger   hash
--       4 size     string  members of the audience `all` in this lane
--       5 buckets  bitmap  its non-empty buckets
--       then per user: permits zset, subs hash, members set (the audience's bucket)
-- ARGV  1 token, 2 now_ms or '', 3 cap (uses), 4 users (count)
--       then per user: openid, bucket, items (count), and per item: kind (f, p, s),
--       id (form_id, prepay_id, template_id), expires_at_ms ('' = 7 days from now; f and p),
--       verdict (s: 'accept', 'forever' (long-term), 'reject', 'correct' (an accept that this
--       source may not count)), source id or '', at_ms or ''
-- Returns  per item one integer: 1 new, 0 known, -1 expired, -2 void since, -3 not counted,
--       -4 rejected by the user; then uses evicted by the cap.
--@include reply
--@include clock
local stock, ledger, size, buckets = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local cap = tonumber(ARGV[3])
local margin = 0
--@include permit
sums = {}
local WEEK, YEAR = 7 * 24 * HOUR, 365 * 24 * HOUR
local NEW, KNOWN, EXPIRED, VOID, NOT_COUNTED, REJECTED = 1, 0, -1, -2, -3, -4
local evicted = 0

local added = 0

local function add_use(permits, member, expires)
  if redis.call('ZADD', permits, 'NX', expires, member) == 0 then return KNOWN end
  add(stock, kind_of(member) .. ':' .. hour_of(expires), 1)
  add(ledger, 'collected:' .. kind_of(member), 1)
  return NEW
end

local function add_permit(permits, kind, id, expires)
  if expires <= now then return EXPIRED end
  if kind == 'f' then return add_use(permits, 'f:' .. id, expires) end
  local result = KNOWN
  for use = 1, 3 do
    if add_use(permits, 'p:' .. id .. ':' .. use, expires) == NEW then result = NEW end
  end
  return result
end

-- What is past goes: tombstones, and uses that nobody spent, unless their hour was trimmed already.
local function drop_past(permits)
  if redis.call('ZCOUNT', permits, -now, now) == 0 then return end
  local ended = redis.call('ZRANGEBYSCORE', permits, math.max(1, trimmed * HOUR), now, 'WITHSCORES')
  for i = 1, #ended, 2 do
    add(stock, kind_of(ended[i]) .. ':' .. hour_of(tonumber(ended[i + 1])), -1)
    count_use(ended[i], 0, 'expired')
  end
  redis.call('ZREMRANGEBYSCORE', permits, -now, now)
end

local function evict_oldest(permits)
  local over = redis.call('ZCOUNT', permits, string.format('(%d', now), '+inf') - cap
  if over <= 0 then return end
  local oldest = redis.call('ZRANGEBYSCORE', permits, string.format('(%d', now), '+inf',
    'WITHSCORES', 'LIMIT', 0, over)
  for i = 1, #oldest, 2 do
    local expires = tonumber(oldest[i + 1])
    redis.call('ZADD', permits, 'XX', -expires, oldest[i])
    add(stock, kind_of(oldest[i]) .. ':' .. hour_of(expires), -1)
    count_use(oldest[i], 0, 'void')
  end
  evicted = evicted + over
  -- a flood must not live on as tombstones: of those the ones that end first are forgotten
  local tombstones = redis.call('ZCOUNT', permits, '-inf', '(0') - 10 * cap
  if tombstones > 0 then
    local first = redis.call('ZREVRANGEBYSCORE', permits, '(0', '-inf', 'LIMIT', 0, tombstones)
    redis.call('ZREM', permits, unpack(first, 1, math.min(#first, 5000)))
  end
end

-- Source ids are remembered for as long as a duplicate may plausibly come: at most 500 per user.
local function forget_old_sources(subs)
  if redis.call('HLEN', subs) <= 500 then return end
  local fields = redis.call('HGETALL', subs)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 5) == 'seen:'
      and tonumber(string.match(fields[i + 1], '^%d+')) < now - WEEK then
      redis.call('HDEL', subs, fields[i])
    end
  end
end

-- A rejection of `at` may come late: accepts that are known to be given after it stay, as far as
-- they are unspent (those given first are taken to be spent first).
local function void_until(subs, template, at)
  local since = math.max(at, tonumber(redis.call('HGET', subs, 'void:' .. template) or 0))
  local start, later = 'seen:' .. template .. ':', 0
  local fields = redis.call('HGETALL', subs)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, #start) == start then
      local given = tonumber(string.match(fields[i + 1], ' (%d+)$') or 0)
      if given > since then later = later + 1 end
    end
  end
  local count = tonumber(redis.call('HGET', subs, template) or 0)
  if later == 0 then
    void_count(subs, template)
  elseif count > later then
    void_count(subs, template, count - later)
  end
  mark_void(subs, template, at, now)
end

-- at: when the user chose, or nil: then items count in the order in which they come.
local function add_subscription(subs, template, verdict, source_id, at)
  if at then at = math.min(at, now) end  -- a clock that is ahead would void what is yet to come
  if verdict == 'correct' then return NOT_COUNTED end  -- its source may still count it
  if source_id ~= '' then
    forget_old_sources(subs)
    if redis.call('HLEN', subs) > 500 and verdict ~= 'reject' then return NOT_COUNTED end
    local seen = string.format('%d', now)
    if verdict ~= 'reject' then seen = string.format('%s %d', seen, at or now) end
    if redis.call('HSETNX', subs, 'seen:' .. template .. ':' .. source_id, seen) == 0 then
      return KNOWN
    end
  end
  if verdict == 'reject' then
    redis.call('HSETNX', subs, template, 0)  -- void_all writes nothing for whoever has nothing
    if at then void_until(subs, template, at) else void_all(nil, subs, 'subscribe', template, now) end
    return REJECTED
  end
  if at and at <= tonumber(redis.call('HGET', subs, 'void:' .. template) or -1) then return VOID end
  local count = tonumber(redis.call('HGET', subs, template) or 0)
  if verdict == 'forever' then
    if count > 0 then void_count(subs, template) end  -- counted before it was long-term
    redis.call('HSET', subs, template, -1)
    return count == -1 and KNOWN or NEW
  end
  if count == -1 then return KNOWN end
  if count >= cap then
    evicted = evicted + 1
    return KNOWN
  end
  redis.call('HINCRBY', subs, template, 1)
  add(stock, 's:' .. template, 1)
  add(ledger, 'collected:s', 1)
  return NEW
end

local results, arg = {}, 5
for user = 1, tonumber(ARGV[4]) do
  local base = 5 + (user - 1) * 3
  local permits, subs, members = KEYS[base + 1], KEYS[base + 2], KEYS[base + 3]
  local openid, bucket, items = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
  arg = arg + 3
  local before, known = last_end(permits)
  -- what is past goes; who is evicted never has the last end
  local after = before and before > now and before or nil
  local gave, timed, counted = false, false, false
  if known then drop_past(permits) end
  for _ = 1, items do
    local kind, id, expires, verdict, source_id, at =
      ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], ARGV[arg + 4], ARGV[arg + 5]
    arg = arg + 6
    local result
    if kind == 's' then
      result = add_subscription(subs, id, verdict, source_id, tonumber(at))
      counted = true
    else
      local ends = expires == '' and now + WEEK or math.min(tonumber(expires), now + WEEK)
      result = add_permit(permits, kind, id, ends)
      if result == NEW then after = math.max(after or 0, ends) end
      timed = true
    end
    gave = gave or result == NEW
    results[#results + 1] = result
  end
  if timed and (known or 3 * items > cap) then evict_oldest(permits) end
  move_last_end(before, after)
  if timed and after then
    -- never lowered: tombstones end no later than the last permit ever stored
    local ttl = known and redis.call('PEXPIRETIME', permits) or -1
    if after > ttl then redis.call('PEXPIREAT', permits, after) end
  end
  if counted then redis.call('PEXPIREAT', subs, now + YEAR) end
  if gave and redis.call('SADD', members, openid) == 1 then
    redis.call('SETBIT', buckets, bucket, 1)
    added = added + 1
  end
end
write_sums()
if added > 0 then redis.call('INCRBY', size, added) end
results[#results + 1] = evicted
return answer(results)
