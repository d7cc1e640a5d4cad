-- permit: what can happen to one use of a permit, in the user's keys, the stock and the ledger.
--
-- Data model
--   permits  zset  member (f:FORM_ID, p:PREPAY_ID:n) -> expires_at_ms while available;
--                  -expires_at_ms once held, spent or void (a tombstone: collecting it again
--                  changes nothing)
--   subs     hash  template -> available accepts (-1 unlimited), never 0; it has no end, for accepts
--                  have none: the last one that goes takes the key with it
--   marks    hash  template -> "VOID VOIDED FLOOR" and " DIGEST:GIVEN" per result that has an id, of
--                  this user. Accepts given until VOID (ms) are void, which became known at VOIDED;
--                  DIGEST: of the id; GIVEN: when the accept was given (ms, 13 digits; zeros of a
--                  rejection); FLOOR: when the newest accept was given whose mark is forgotten
--   stock    hash  f:HOUR, p:HOUR, s:TEMPLATE -> available uses; u:HOUR -> users whose last use
--                  ends in that hour; trimmed -> the first hour that was not trimmed yet
--   ledger   hash  collected:K spent:K void:K expired:K -> uses
--
-- Guarantee: every use is in exactly one of available, held, spent, void, expired (I1); held is
-- collected minus the others. A use past its expiry leaves `available` when its hour is trimmed, or
-- before that when its user is next seen by `collect`.
-- What lies under a user's keys, and is not what this says, is no permit: nothing here fails on it.
--
-- books: what the uses of one app in one lane are counted in, for one run of a script; from
-- open_books, and the first argument of whatever counts. Fields: now (ms), margin (ms: a permit that
-- ends sooner is not claimed), stock and ledger (key names), trimmed (hour), sums (see sum_up).
--@include store/check
local HOUR = 3600000
local MARKS_TTL = 30 * 24 * HOUR
local function hour_of(at) return string.format('%d', math.floor(at / HOUR)) end
local function kind_of(member) return string.sub(member, 1, 1) end

-- A field goes when nothing is left in it. A count that is no number (somebody wrote into it) begins
-- anew: it must not end a script half-way.
local function add_now(key, field, by)
  local count = redis.pcall('HINCRBY', key, field, by)
  if count == 0 then
    redis.call('HDEL', key, field)
  elseif type(count) == 'table' then
    redis.call('HSET', key, field, by)
  end
end

-- of: 'stock' or 'ledger'.
local function add(books, of, field, by)
  local sums = books.sums and books.sums[of]
  if not sums then return add_now(books[of], field, by) end
  sums[field] = (sums[field] or 0) + by
end

-- Stock and ledger are both looked at here, so that no write to them can fail.
local function open_books(now, margin, stock, ledger)
  local trimmed = num(redis.call('HGET', stock, 'trimmed'))
  redis.call('HEXISTS', ledger, '')
  return { now = now, margin = margin, stock = stock, ledger = ledger, trimmed = trimmed }
end

-- A script of many messages adds up what it counts, and writes it in its end, once a field.
local function sum_up(books) books.sums = { stock = {}, ledger = {} } end

local function write_sums(books)
  for of, fields in pairs(books.sums) do
    for field, by in pairs(fields) do
      if by ~= 0 then add_now(books[of], field, by) end
    end
  end
  sum_up(books)
end

-- When a user's last use ends, among the hours that are still in the stock; then, whether the user
-- has any member at all, tombstones included.
local function last_end(books, permits)
  local last = redis.call('ZREVRANGE', permits, 0, 0, 'WITHSCORES')
  local at = tonumber(last[2] or 0)
  return at >= books.trimmed * HOUR and at > 0 and at or nil, last[1] ~= nil
end

local function move_last_end(books, before, after)
  local from, to = before and hour_of(before), after and hour_of(after)
  if from == to then return end
  if from then add(books, 'stock', 'u:' .. from, -1) end
  if to then add(books, 'stock', 'u:' .. to, 1) end
end

-- The usable permit that expires first becomes held. skip: a kind that is not to be used, or ''.
-- Returns member, expires_at_ms; nothing when the user has none.
local function claim_permit(books, permits, skip)
  local found = redis.pcall('ZRANGEBYSCORE', permits, string.format('(%d', books.now + books.margin),
    '+inf', 'WITHSCORES', 'LIMIT', 0, skip == '' and 2 or -1)
  for i = 1, #found, 2 do
    local member, expires = found[i], tonumber(found[i + 1])
    if kind_of(member) ~= skip then
      redis.call('ZADD', permits, 'XX', -expires, member)
      add(books, 'stock', kind_of(member) .. ':' .. hour_of(expires), -1)
      if #found == i + 1 then move_last_end(books, expires, last_end(books, permits)) end
      return member, expires
    end
  end
end

local function count_of(subs, template)
  return num(redis.pcall('HGET', subs, template))
end

local function set_count(subs, template, count)
  if count == 0 then return redis.pcall('HDEL', subs, template) end
  redis.pcall('HSET', subs, template, count)
end

local function claim_subscription(books, subs, template)
  local count = count_of(subs, template)
  if count == 0 then return end
  if count > 0 then
    set_count(subs, template, count - 1)
    add(books, 'stock', 's:' .. template, -1)
    return 's:' .. template, 1
  end
  return 's:' .. template, 0  -- unlimited: nothing is counted
end

-- Claims by channel. Returns member, expires_at_ms (a subscription: 1 counted, 0 unlimited).
local function claim(books, permits, subs, channel, template, skip)
  if channel == 'subscribe' then return claim_subscription(books, subs, template) end
  return claim_permit(books, permits, skip)
end

local function count_use(books, member, expires, fate)
  if kind_of(member) ~= 's' or expires == 1 then
    add(books, 'ledger', fate .. ':' .. kind_of(member), 1)
  end
end

-- Returns VOID, VOIDED, what follows them (see above).
local function read_mark(value)
  local void, voided, rest = string.match(text_of(value), '^(%d+) (%d+)( .*)$')
  return tonumber(void or 0), tonumber(voided or 0), rest or ' 0'
end

local function marks_of(subs) return (string.gsub(subs, '}:subs:', '}:marks:', 1)) end

-- Whoever is no member of `all` was forgotten while a message was in somebody's hands.
local function is_forgotten(members, openid) return redis.pcall('SISMEMBER', members, openid) == 0 end

-- Surely not used: available again, unless it ended, or was voided, meanwhile.
-- members: the audience `all` in the user's bucket.
local function hand_back(books, permits, subs, member, expires, since, members, openid)
  if kind_of(member) == 's' then
    if expires ~= 1 then return end
    local template = string.sub(member, 3)
    local count = count_of(subs, template)
    local _, voided = read_mark(redis.pcall('HGET', marks_of(subs), template))
    -- withdrawn meanwhile, or long-term by now, or its user forgotten: it is no longer counted
    if count < 0 or voided >= since or is_forgotten(members, openid) then
      return count_use(books, member, expires, 'void')
    end
    set_count(subs, template, count + 1)
    add(books, 'stock', 's:' .. template, 1)
  elseif expires <= books.now then
    count_use(books, member, expires, 'expired')
  elseif num(redis.pcall('ZSCORE', permits, member)) >= 0 then
    count_use(books, member, expires, 'void')  -- no tombstone: its user was forgotten, perhaps is back
  else
    local before = last_end(books, permits)
    redis.call('ZADD', permits, expires, member)
    add(books, 'stock', kind_of(member) .. ':' .. hour_of(expires), 1)
    move_last_end(books, before, last_end(books, permits))
  end
end

-- At most `most` accepts of a template become void (all of them, and an unlimited one, without it).
local function void_count(books, subs, template, most)
  local count = count_of(subs, template)
  if count < 0 then return set_count(subs, template, 0) end
  local gone = math.min(count, most or count)
  if gone > 0 then
    set_count(subs, template, count - gone)
    add(books, 'stock', 's:' .. template, -gone)
    add(books, 'ledger', 'void:s', gone)
  end
end

-- Accepts given until `at` are void, and those held since before `known_at` will not come back.
local function mark_void(subs, template, at, known_at)
  local marks = marks_of(subs)
  local void, voided, rest = read_mark(redis.pcall('HGET', marks, template))
  redis.pcall('HSET', marks, template,
    string.format('%d %d%s', math.max(at, void), math.max(known_at, voided), rest))
  redis.call('PEXPIRE', marks, MARKS_TTL)
end

-- Every available use of this user (of one template, for subscriptions) becomes void: what was
-- given until `at`, as far as it is known, and what is held now and would be handed back.
-- members: as of hand_back.
local function void_all(books, permits, subs, channel, template, at, members, openid)
  if channel == 'subscribe' then
    if is_forgotten(members, openid) then return end
    void_count(books, subs, template)
    mark_void(subs, template, at, books.now)
    return
  end
  local found = redis.pcall('ZRANGEBYSCORE', permits, string.format('(%d', books.now), '+inf', 'WITHSCORES')
  if found.err or #found == 0 then return end
  local before = last_end(books, permits)
  for i = 1, #found, 2 do
    local expires = tonumber(found[i + 1])
    redis.call('ZADD', permits, 'XX', -expires, found[i])
    add(books, 'stock', kind_of(found[i]) .. ':' .. hour_of(expires), -1)
    count_use(books, found[i], expires, 'void')
  end
  move_last_end(books, before, last_end(books, permits))
end

-- Users whose permits prove dead (41028 and its like) are trusted no more that day: each costs a send.
--   dead  hash, of a day (UTC)  openid -> permits of the user that WeChat called dead on that day
local MOST_DEAD = 3  -- so a message swaps twice at the most
local function dead_of(books, prefix, app)
  books.dead = books.dead or string.format('%sdead:%s:%d', prefix, app, math.floor(books.now / 86400000))
  return books.dead
end

-- Returns whether the user has had as many as there may be in a day.
local function note_dead(books, prefix, app, openid)
  local dead_key = dead_of(books, prefix, app)
  local count = redis.pcall('HINCRBY', dead_key, openid, 1)
  if type(count) == 'table' then  -- no number: somebody wrote into it
    count = 1
    redis.call('HSET', dead_key, openid, count)
  end
  if count == 1 then redis.call('PEXPIRE', dead_key, 172800000) end
  books.anybody_dead = true
  return count >= MOST_DEAD
end

local function is_distrusted(books, prefix, app, openid)
  local dead_key = dead_of(books, prefix, app)
  if books.anybody_dead == nil then books.anybody_dead = redis.call('EXISTS', dead_key) == 1 end
  return books.anybody_dead and num(redis.call('HGET', dead_key, openid)) >= MOST_DEAD
end

-- Whoever was refused before the first delivery: the refusals are believed, the rest is void.
--   suspects  list  openid, when it was refused (ms), accepts of the template that it had then
-- Accepts of a template that came after the refusal stay.
local function void_suspects(books, prefix, app, id, channel, template)
  local suspects = prefix .. 'suspects:' .. id
  for _, suspect in ipairs(redis.pcall('LRANGE', suspects, 0, -1)) do
    local openid, at, count = string.match(suspect, '^(%S+) (%d+) (%d+)$')
    openid = openid or ''
    local permits = prefix .. 'permits:' .. app .. ':' .. openid
    local subs = prefix .. 'subs:' .. app .. ':' .. openid
    if channel == 'subscribe' and redis.call('EXISTS', subs, marks_of(subs)) == 0 then
      -- forgotten meanwhile, or has nothing left that could be void
    elseif channel == 'subscribe' then
      void_count(books, subs, template, tonumber(count))
      mark_void(subs, template, tonumber(at), tonumber(at))
    else
      void_all(books, permits, subs, channel, template, tonumber(at))
    end
  end
  redis.call('DEL', suspects)
end
