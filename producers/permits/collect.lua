#!lua
-- collect: store the permits of up to a few hundred users of one lane and app.
--
-- Guarantee: the same permit twice is one permit, whatever became of the first; a subscription
-- item with a source id counts once. A user keeps at most `cap` available uses, the newest; of a
-- template, at most `cap` accepts. All users are stored, or none: whatever is given or found is
-- looked at before the first write.
--
-- Bounds, per user and app, whatever was sent before (see MOST_… below, and keys.marks): tombstones,
-- templates, marks. Beyond them a source id that came long ago may count again if it has no time of
-- its own, and of accepts that are not marked any more a late rejection takes all.
--
-- KEYS  1 reply    string  see reply.lua
--       2 stock    hash    see permit.lua
--       3 ledger   hash
--       4 size     string  members of the audience `all` in this lane
--       5 buckets  bitmap  its non-empty buckets
--       then per user: permits zset, subs hash, marks hash, members set (the audience's bucket)
-- ARGV  1 token, 2 now_ms or '', 3 cap (uses), 4 users (count)
--       then per user: openid, bucket, items (count, up to 1000), and per item: kind (f, p, s),
--       id (form_id, prepay_id, template_id), expires_at_ms ('' = 7 days from now; f and p),
--       verdict (s: 'accept', 'stray' (an accept of a template that nothing names), 'forever'
--       (long-term), 'reject', 'correct' (an accept that this source may not count)), source id
--       or '', at_ms or ''
-- Returns  per item one integer: 1 new, 0 known, -1 expired, -2 void since, -3 not counted,
--       -4 rejected by the user, -5 a stray template and no room, -6 too many templates of this
--       user; then uses evicted by the cap.
--@include store/reply
--@include store/clock
--@include store/check
--@include permits/permit
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
local now = clock(ARGV[2])
local stock, ledger, size, buckets = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local books = open_books(now, 0, stock, ledger)
sum_up(books)
local WEEK = 7 * 24 * HOUR
local NEW, KNOWN, EXPIRED, VOID, NOT_COUNTED, REJECTED, STRAY, TOO_MANY = 1, 0, -1, -2, -3, -4, -5, -6
local MOST_TOMBSTONES = 200    -- of a user; more when `cap` is above 100
local MOST_TEMPLATES = 50      -- of which a user has accepts
local MOST_MARKED = 20         -- templates with marks of a user; beyond, those drawn by lot are forgotten
local MOST_MARKS = 32          -- ids that are remembered of a template and user, the newest
local MOST_STOCK = 600         -- fields of the stock, beyond which no stray template gets one
local MOST_FIELDS = 600        -- of a user's subs: beyond, it is of an older layout, and flooded
local MARK = 25                -- bytes of " DIGEST:GIVEN"
local evicted, added = 0, 0

-- -- what is given -----------------------------------------------------------------------------------

local KINDS = { f = true, p = true, s = true }
local VERDICTS = { accept = true, stray = true, forever = true, reject = true, correct = true }

-- Returns whether it is a subscription.
local function check_item(arg)
  local kind, id = ARGV[arg], ARGV[arg + 1]
  if not KINDS[kind] then refuse('kind', kind) end
  if #id == 0 or #id > 128 then refuse('id', id) end
  if kind ~= 's' then
    if ARGV[arg + 2] ~= '' then whole('expires_at_ms', ARGV[arg + 2], 0, 2 ^ 53) end
    return false
  end
  if string.find(id, ':', 1, true) then refuse('template_id', id) end
  if not VERDICTS[ARGV[arg + 3]] then refuse('verdict', ARGV[arg + 3]) end
  if ARGV[arg + 5] ~= '' then whole('at_ms', ARGV[arg + 5], 0, 2 ^ 53) end
  return true
end

local cap = whole('cap', ARGV[3], 1, 100000)
local users, given = {}, #ARGV
local arg = 5
for user = 1, whole('users', ARGV[4], 0, 1000) do
  local base = 5 + (user - 1) * 4
  local one = { permits = KEYS[base + 1], subs = KEYS[base + 2], marks = KEYS[base + 3],
    members = KEYS[base + 4], arg = arg, items = whole('items', ARGV[arg + 2], 0, 1000),
    counted = false, timed = false, member = false, fields = 0, templates = 0 }
  whole('bucket', ARGV[arg + 1], 0, 2 ^ 20)
  arg = arg + 3
  if arg + 6 * one.items - 1 > given then refuse('items', one.items) end
  for _ = 1, one.items do
    if check_item(arg) then one.counted = true else one.timed = true end
    arg = arg + 6
  end
  users[user] = one
end
if given ~= arg - 1 or #KEYS ~= 5 + 4 * #users then refuse('arguments', given) end

-- -- what is there -----------------------------------------------------------------------------------

-- The mark of a template as a table; nothing known: an empty one.
local function read_template(value)
  if not value then return { void = 0, voided = 0, floor = 0, ids = '' } end
  local void, voided, rest = read_mark(value)
  local floor, ids = string.match(rest, '^ (%d+)(.*)$')
  if not ids or #ids % MARK ~= 0 then ids = '' end
  return { void = void, voided = voided, floor = tonumber(floor or 0), ids = ids }
end

local function mark_of(one, template)
  local mark = one.marked[template]
  if not mark then
    mark = read_template(redis.call('HGET', one.marks, template))
    one.marked[template] = mark
  end
  return mark
end

local function digest_of(template, source)
  return string.sub(redis.sha1hex(template .. ' ' .. source), 1, 10)
end

local function remember(mark, digest, given)
  mark.ids = string.format('%s %s:%013d', mark.ids, digest, given)
  if #mark.ids > MOST_MARKS * MARK then
    mark.floor = math.max(mark.floor, tonumber(string.sub(mark.ids, 13, MARK)) or 0)
    mark.ids = string.sub(mark.ids, MARK + 1)
  end
  mark.moved = true
end

-- Subscriptions of older layouts hold marks too, in fields `void:T`, `voided:T` and `seen:T:ID`.
local function move_old_mark(one, field, value)
  local kind, rest = string.match(field, '^(%l+):(.*)$')
  local template, source = rest, nil
  if kind == 'seen' then template, source = string.match(rest, '^([^:]+):(.+)$') end
  if not template or string.find(template, '[^!-9;-~]') then return end
  local mark = mark_of(one, template)
  local at, given = string.match(value, '^(%d+) ?(%d*)$')
  if kind == 'void' or kind == 'voided' then
    mark[kind], mark.moved = math.max(mark[kind], tonumber(at or 0)), true
  elseif source and not string.find(mark.ids, ' ' .. digest_of(template, source), 1, true) then
    remember(mark, digest_of(template, source), tonumber(given) or 0)
  end
end

-- A flooded hash of an older layout is written anew: the counts, which all are in the stock, and when
-- they were voided. What else was remembered in it is given up, and long-term accepts with it.
local function read_flooded(one)
  local names, seen = {}, {}
  local function name(template)
    if not seen[template] then names[#names + 1], seen[template] = template, true end
  end
  for _, field in ipairs(redis.call('HKEYS', stock)) do
    if string.sub(field, 1, 2) == 's:' then name(string.sub(field, 3)) end
  end
  for template in pairs(one.marked) do name(template) end
  local fields = {}
  for i, template in ipairs(names) do
    fields[3 * i - 2], fields[3 * i - 1], fields[3 * i] = template, 'void:' .. template,
      'voided:' .. template
  end
  local values = redis.call('HMGET', one.subs, unpack(fields))
  local found = {}
  for i = 1, #fields do
    if values[i] then
      found[#found + 1] = fields[i]
      found[#found + 1] = values[i]
    end
  end
  return found
end

local function read_subs(one)
  one.counts, one.marked, one.changed, one.templates = {}, {}, {}, 0
  for n = 0, one.items - 1 do
    local item = one.arg + 3 + 6 * n
    if ARGV[item] == 's' then mark_of(one, ARGV[item + 1]) end
  end
  one.fields = redis.call('HLEN', one.subs)
  if one.fields == 0 then return end
  one.old, one.flooded = {}, one.fields > MOST_FIELDS
  local found = one.flooded and read_flooded(one) or redis.call('HGETALL', one.subs)
  for i = 1, #found, 2 do
    local count = tonumber(found[i + 1])
    if string.find(found[i], ':', 1, true) then
      one.old[#one.old + 1] = found[i]
      move_old_mark(one, found[i], found[i + 1])
    elseif not count or count == 0 or count % 1 ~= 0 or count < -1 then
      one.old[#one.old + 1] = found[i]
    else
      one.counts[found[i]] = count
      one.templates = one.templates + 1
    end
  end
end

local everybody = whole('size', redis.call('GET', size) or '0', 0, 2 ^ 53)
redis.call('GETBIT', buckets, 0)
for _, one in ipairs(users) do
  if one.timed then one.before, one.known = last_end(books, one.permits) end
  one.member = redis.call('SISMEMBER', one.members, ARGV[one.arg]) == 1
  if one.counted then read_subs(one) end
end

-- -- form_ids and prepay_ids ---------------------------------------------------------------------------

local function add_use(permits, member, expires)
  if redis.call('ZADD', permits, 'NX', expires, member) == 0 then return KNOWN end
  add(books, 'stock', kind_of(member) .. ':' .. hour_of(expires), 1)
  add(books, 'ledger', 'collected:' .. kind_of(member), 1)
  return NEW
end

local function add_permit(permits, kind, id, ends)
  if ends <= now then return EXPIRED end
  if kind == 'f' then return add_use(permits, 'f:' .. id, ends) end
  local result = KNOWN
  for use = 1, 3 do
    if add_use(permits, 'p:' .. id .. ':' .. use, ends) == NEW then result = NEW end
  end
  return result
end

-- What is past goes: tombstones, and uses that nobody spent, unless their hour was trimmed already.
local function drop_past(permits)
  if redis.call('ZCOUNT', permits, -now, now) == 0 then return end
  local ended = redis.call('ZRANGEBYSCORE', permits, math.max(1, books.trimmed * HOUR), now, 'WITHSCORES')
  for i = 1, #ended, 2 do
    add(books, 'stock', kind_of(ended[i]) .. ':' .. hour_of(tonumber(ended[i + 1])), -1)
    count_use(books, ended[i], 0, 'expired')
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
    add(books, 'stock', kind_of(oldest[i]) .. ':' .. hour_of(expires), -1)
    count_use(books, oldest[i], 0, 'void')
  end
  evicted = evicted + over
  -- a flood must not live on as tombstones: of those the ones that end first are forgotten
  local tombstones = redis.call('ZCOUNT', permits, '-inf', '(0') - math.max(MOST_TOMBSTONES, 2 * cap)
  if tombstones > 0 then
    local first = redis.call('ZREVRANGEBYSCORE', permits, '(0', '-inf', 'LIMIT', 0,
      math.min(tombstones, 2000))
    redis.call('ZREM', permits, unpack(first))
  end
end

-- -- subscriptions: all in memory, then written --------------------------------------------------------

local function count_is(one, template, count)
  if count == 0 and one.counts[template] then one.templates = one.templates - 1 end
  if count ~= 0 and not one.counts[template] then one.templates = one.templates + 1 end
  one.counts[template] = count ~= 0 and count or nil
  one.changed[template] = true
end

local function void_accepts(one, template, gone)
  if gone <= 0 then return end
  count_is(one, template, one.counts[template] - gone)
  add(books, 'stock', 's:' .. template, -gone)
  add(books, 'ledger', 'void:s', gone)
end

-- A rejection of `at` may come late: accepts that are known to be given after it stay, as far as
-- they are unspent (those given first are taken to be spent first).
local function reject(one, template, at)
  local mark, count, later = one.marked[template], one.counts[template] or 0, 0
  if at and count ~= 0 then
    local since = math.max(at, mark.void)
    for last = MARK, #mark.ids, MARK do
      if (tonumber(string.sub(mark.ids, last - 12, last)) or 0) > since then later = later + 1 end
    end
  end
  if count < 0 and later == 0 then count_is(one, template, 0) end
  void_accepts(one, template, count - later)
  mark.void, mark.voided, mark.moved = math.max(at or now, mark.void), now, true
  return REJECTED
end

-- A stray template gets a field in the stock while there is room.
local with_field, fields = {}, nil
local function has_room(template)
  if with_field[template] == nil then
    with_field[template] = redis.call('HEXISTS', stock, 's:' .. template) == 1
    fields = fields or redis.call('HLEN', stock)
    if not with_field[template] and fields < MOST_STOCK then
      with_field[template], fields = true, fields + 1
    end
  end
  return with_field[template]
end

-- An accept or a rejection. Without a time of their own they count in the order in which they come.
local function add_subscription(one, template, verdict, source, at)
  if at then at = math.min(at, now) end  -- a clock that is ahead would void what is yet to come
  if verdict == 'correct' then return NOT_COUNTED end  -- its source may still count it
  local mark, count = one.marked[template], one.counts[template] or 0
  local is_accept, digest = verdict ~= 'reject', nil
  if source ~= '' then
    digest = digest_of(template, source)
    if string.find(mark.ids, ' ' .. digest, 1, true) then return KNOWN end
    if is_accept and at and at <= mark.floor then return KNOWN end  -- its mark is perhaps forgotten
  end
  if is_accept and count == 0 then
    if one.templates >= MOST_TEMPLATES then return TOO_MANY end
    if verdict == 'stray' and not has_room(template) then return STRAY end
  end
  if digest then remember(mark, digest, is_accept and (at or now) or 0) end
  if verdict == 'reject' then return reject(one, template, at) end
  if at and at <= mark.void then return VOID end
  if verdict == 'forever' then
    if count == -1 then return KNOWN end
    void_accepts(one, template, count)  -- counted before it was long-term
    count_is(one, template, -1)
    return NEW
  end
  if count == -1 then return KNOWN end
  if count >= cap then
    evicted = evicted + 1
    return KNOWN
  end
  count_is(one, template, count + 1)
  add(books, 'stock', 's:' .. template, 1)
  add(books, 'ledger', 'collected:s', 1)
  return NEW
end

local function write_subs(one)
  if one.flooded then
    redis.call('UNLINK', one.subs)
    for template in pairs(one.counts) do one.changed[template] = true end
  else
    if one.fields > 0 then redis.call('PERSIST', one.subs) end
    if one.old and #one.old > 0 then redis.call('HDEL', one.subs, unpack(one.old)) end
  end
  for template in pairs(one.changed) do set_count(one.subs, template, one.counts[template] or 0) end
  local moved = {}
  for template, mark in pairs(one.marked) do
    if mark.moved then
      moved[#moved + 1] = template
      moved[#moved + 1] = string.format('%d %d %d%s', mark.void, mark.voided, mark.floor, mark.ids)
    end
  end
  if #moved == 0 then return end
  if redis.call('HSET', one.marks, unpack(moved)) > 0 then
    local over = redis.call('HLEN', one.marks) - MOST_MARKED
    if over > 0 then
      redis.call('HDEL', one.marks, unpack(redis.call('HRANDFIELD', one.marks, over)))
    end
  end
  redis.call('PEXPIRE', one.marks, MARKS_TTL)
end

local results = {}
local function store(one)
  local before, after = one.before, nil
  -- what is past goes; who is evicted never has the last end
  if before and before > now then after = before end
  local gave = false
  if one.known then drop_past(one.permits) end
  for arg = one.arg + 3, one.arg + 6 * one.items - 3, 6 do
    local kind, id, result = ARGV[arg], ARGV[arg + 1], nil
    if kind == 's' then
      result = add_subscription(one, id, ARGV[arg + 3], ARGV[arg + 4], tonumber(ARGV[arg + 5]))
    else
      local expires = ARGV[arg + 2]
      local ends = expires == '' and now + WEEK or math.min(tonumber(expires), now + WEEK)
      result = add_permit(one.permits, kind, id, ends)
      if result == NEW then after = math.max(after or 0, ends) end
    end
    gave = gave or result == NEW
    results[#results + 1] = result
  end
  if one.timed then
    if one.known or 3 * one.items > cap then evict_oldest(one.permits) end
    move_last_end(books, before, after)
    if after then
      -- never lowered: tombstones end no later than the last permit ever stored
      local ttl = one.known and redis.call('PEXPIRETIME', one.permits) or -1
      if after > ttl then redis.call('PEXPIREAT', one.permits, after) end
    end
  end
  if one.counted then write_subs(one) end
  if gave and not one.member and redis.call('SADD', one.members, ARGV[one.arg]) == 1 then
    redis.call('SETBIT', buckets, ARGV[one.arg + 1], 1)
    added = added + 1
  end
end

for _, one in ipairs(users) do store(one) end
write_sums(books)
if added > 0 then redis.call('INCRBY', size, added) end
results[#results + 1] = evicted
return answer(KEYS[1], ARGV[1], results)
