-- permit: what can happen to one use of a permit, in the user's keys, the stock and the ledger.
--
-- Data model
--   permits  zset  member (f:FORM_ID, p:PREPAY_ID:n) -> expires_at_ms while available;
--                  -expires_at_ms once held, spent or void (a tombstone: collecting it again
--                  changes nothing)
--   subs     hash  template -> available accepts (-1 unlimited); void:TEMPLATE -> accepts given until
--                  then are void (ms); voided:TEMPLATE -> when that became known (ms)
--   stock    hash  f:HOUR, p:HOUR, s:TEMPLATE -> available uses; u:HOUR -> users whose last use
--                  ends in that hour; trimmed -> the first hour that was not trimmed yet
--   ledger   hash  collected:K spent:K void:K expired:K -> uses
--
-- Guarantee: every use is in exactly one of available, held, spent, void, expired (I1); held is
-- collected minus the others. A use past its expiry leaves `available` when its hour is trimmed, or
-- before that when its user is next seen by `collect`.
-- Expects: now, stock, ledger (key names), margin (ms). A script of many messages sets `sums` to {}
-- and calls write_sums() in its end: then what it adds to the stock and to the ledger is written once
-- a field.
local HOUR = 3600000
local function hour_of(at) return string.format('%d', math.floor(at / HOUR)) end
local function kind_of(member) return string.sub(member, 1, 1) end

local sums
local function add(key, field, by)
  if not sums then return redis.call('HINCRBY', key, field, by) end
  local of_key = sums[key] or {}
  sums[key] = of_key
  of_key[field] = (of_key[field] or 0) + by
end

local function write_sums()
  for key, fields in pairs(sums) do
    for field, by in pairs(fields) do
      if by ~= 0 then redis.call('HINCRBY', key, field, by) end
    end
  end
  sums = {}
end

local trimmed = tonumber(redis.call('HGET', stock, 'trimmed') or 0)

-- When a user's last use ends, among the hours that are still in the stock; then, whether the user
-- has any member at all, tombstones included.
local function last_end(permits)
  local last = redis.call('ZREVRANGE', permits, 0, 0, 'WITHSCORES')
  local at = tonumber(last[2] or 0)
  return at >= trimmed * HOUR and at > 0 and at or nil, last[1] ~= nil
end

local function move_last_end(before, after)
  local from, to = before and hour_of(before), after and hour_of(after)
  if from == to then return end
  if from then add(stock, 'u:' .. from, -1) end
  if to then add(stock, 'u:' .. to, 1) end
end

-- The usable permit that expires first becomes held. skip: a kind that is not to be used, or ''.
-- Returns member, expires_at_ms; nothing when the user has none.
local function claim_permit(permits, skip)
  local found = redis.call('ZRANGEBYSCORE', permits, string.format('(%d', now + margin), '+inf',
    'WITHSCORES', 'LIMIT', 0, skip == '' and 2 or -1)
  for i = 1, #found, 2 do
    local member, expires = found[i], tonumber(found[i + 1])
    if kind_of(member) ~= skip then
      redis.call('ZADD', permits, 'XX', -expires, member)
      add(stock, kind_of(member) .. ':' .. hour_of(expires), -1)
      if #found == i + 1 then move_last_end(expires, last_end(permits)) end
      return member, expires
    end
  end
end

local function claim_subscription(subs, template)
  local count = tonumber(redis.call('HGET', subs, template) or 0)
  if count == 0 then return end
  if count > 0 then
    redis.call('HINCRBY', subs, template, -1)
    add(stock, 's:' .. template, -1)
    return 's:' .. template, 1
  end
  return 's:' .. template, 0  -- unlimited: nothing is counted
end

-- Claims by channel. Returns member, expires_at_ms (a subscription: 1 counted, 0 unlimited).
local function claim(permits, subs, channel, template, skip)
  if channel == 'subscribe' then return claim_subscription(subs, template) end
  return claim_permit(permits, skip)
end

local function count_use(member, expires, fate)
  if kind_of(member) ~= 's' or expires == 1 then
    add(ledger, fate .. ':' .. kind_of(member), 1)
  end
end

-- Surely not used: available again, unless it ended, or was voided, meanwhile.
local function hand_back(permits, subs, member, expires, since)
  if kind_of(member) == 's' then
    if expires ~= 1 then return end
    local template = string.sub(member, 3)
    -- withdrawn meanwhile, or long-term by now, or its user forgotten: it is no longer counted
    if redis.call('HEXISTS', subs, template) == 0
      or tonumber(redis.call('HGET', subs, 'voided:' .. template) or 0) >= since
      or redis.call('HGET', subs, template) == '-1' then
      return count_use(member, expires, 'void')
    end
    redis.call('HINCRBY', subs, template, 1)
    add(stock, 's:' .. template, 1)
  elseif expires <= now then
    count_use(member, expires, 'expired')
  elseif tonumber(redis.call('ZSCORE', permits, member) or 0) >= 0 then
    count_use(member, expires, 'void')  -- no tombstone: its user was forgotten (and may be back)
  else
    local before = last_end(permits)
    redis.call('ZADD', permits, expires, member)
    add(stock, kind_of(member) .. ':' .. hour_of(expires), 1)
    move_last_end(before, last_end(permits))
  end
end

-- At most `most` accepts of a template become void (all of them, and an unlimited one, without it).
local function void_count(subs, template, most)
  local count = tonumber(redis.call('HGET', subs, template) or 0)
  if count < 0 then
    redis.call('HSET', subs, template, 0)
    return
  end
  count = math.min(count, most or count)
  if count > 0 then
    redis.call('HINCRBY', subs, template, -count)
    add(stock, 's:' .. template, -count)
    add(ledger, 'void:s', count)
  end
end

-- Accepts given until `at` are void, and those held since before `known_at` will not come back.
local function mark_void(subs, template, at, known_at)
  local last = redis.call('HMGET', subs, 'void:' .. template, 'voided:' .. template)
  redis.call('HSET', subs, 'void:' .. template, math.max(at, tonumber(last[1] or 0)),
    'voided:' .. template, math.max(known_at, tonumber(last[2] or 0)))
end

-- Every available use of this user (of one template, for subscriptions) becomes void: what was
-- given until `at`, as far as it is known, and what is held now and would be handed back.
local function void_all(permits, subs, channel, template, at)
  if channel == 'subscribe' then
    if redis.call('EXISTS', subs) == 0 then return end  -- forgotten while one was in flight
    void_count(subs, template)
    if redis.call('HEXISTS', subs, template) == 0 then redis.call('HSET', subs, template, 0) end
    mark_void(subs, template, at, now)
    return
  end
  local found = redis.call('ZRANGEBYSCORE', permits, string.format('(%d', now), '+inf', 'WITHSCORES')
  local before = last_end(permits)
  for i = 1, #found, 2 do
    local expires = tonumber(found[i + 1])
    redis.call('ZADD', permits, 'XX', -expires, found[i])
    add(stock, kind_of(found[i]) .. ':' .. hour_of(expires), -1)
    count_use(found[i], expires, 'void')
  end
  move_last_end(before, last_end(permits))
end

-- Whoever was refused before the first delivery: the refusals are believed, the rest is void.
--   suspects  list  openid, when it was refused (ms), accepts of the template that it had then
-- Accepts of a template that came after the refusal stay.
local function void_suspects(prefix, app, id, channel, template)
  local suspects = prefix .. 'suspects:' .. id
  for _, suspect in ipairs(redis.call('LRANGE', suspects, 0, -1)) do
    local openid, at, count = string.match(suspect, '^(%S+) (%d+) (%d+)$')
    local permits = prefix .. 'permits:' .. app .. ':' .. openid
    local subs = prefix .. 'subs:' .. app .. ':' .. openid
    if channel == 'subscribe' and redis.call('EXISTS', subs) == 0 then
      -- forgotten meanwhile
    elseif channel == 'subscribe' then
      void_count(subs, template, tonumber(count))
      mark_void(subs, template, tonumber(at), tonumber(at))
    else
      void_all(permits, subs, channel, template, tonumber(at))
    end
  end
  redis.call('DEL', suspects)
end
