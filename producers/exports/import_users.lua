#!lua
-- import_users: put users of an export into one lane of an app: what they have, and what is gone.
--
-- Guarantee: run again it changes nothing, whatever became meanwhile of what the first run stored. A use
-- that was held, spent or void where it was exported can be neither had nor collected here. Accepts have
-- no identity: those of a user are counted once per `took`. All users are stored, or none.
--
-- KEYS  1 stock hash, 2 ledger hash, 3 size string and 4 buckets bitmap of the audience `all`,
--       5 took_size string and 6 took_buckets bitmap of those whose accepts were counted before
--       then per user: permits zset, subs hash, marks hash, members set (of `all`), took set
-- ARGV  1 now_ms or '', 2 at_ms: when it was exported, 3 ttl_ms of `took`, 4 counts: 1, or 0 to leave
--       accepts out, 5 users (count)
--       then per user: openid, bucket, uses, accepts, marks (counts), then per use: member,
--       ends_ms (of one that is gone: negative), per accept: template, count (-1: long-term), per mark:
--       template, mark (see permit.lua)
-- Returns  {uses that are new: form_ids, prepay_ids, accepts; uses known before, uses that have ended,
--       gone ones that are new, gone ones that could be had here until now, accepts left out, accepts
--       that the user withdrew here since, users new in `all`}
--@include store/clock
--@include store/check
--@include permits/permit
local now = clock(ARGV[1])
local stock, ledger = KEYS[1], KEYS[2]
local at, ttl = whole('at_ms', ARGV[2], 0, 2 ^ 53), whole('ttl_ms', ARGV[3], 1, 2 ^ 42)
local counts = whole('counts', ARGV[4], 0, 1) == 1
local books = open_books(now, 0, stock, ledger)
sum_up(books)
local WEEK, MOST_TEMPLATES, MOST_MARKED, MOST_MARKS, MARK = 7 * 24 * HOUR, 50, 20, 32, 25
local NEW = { f = 1, p = 2, s = 3 }
local KNOWN, ENDED, GONE, LOST, LEFT_OUT, WITHDRAWN, JOINED = 4, 5, 6, 7, 8, 9, 10
local did = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
local function note(what, by) did[what] = did[what] + (by or 1) end

-- -- what is given -----------------------------------------------------------------------------------

audience_is_sound({ KEYS[3], KEYS[4] })
audience_is_sound({ KEYS[5], KEYS[6] })
local users, arg = {}, 6
for user = 1, whole('users', ARGV[5], 0, 1000) do
  local base = 6 + (user - 1) * 5
  if not KEYS[base + 5] or arg + 4 > #ARGV then refuse('users', ARGV[5]) end
  local one = { permits = KEYS[base + 1], subs = KEYS[base + 2], marks = KEYS[base + 3],
    members = KEYS[base + 4], took = KEYS[base + 5], openid = ARGV[arg], bucket = ARGV[arg + 1],
    uses = arg + 5 }
  whole('bucket', one.bucket, 0, 2 ^ 20)
  one.accepts = one.uses + 2 * whole('uses', ARGV[arg + 2], 0, 2000)
  one.marked = one.accepts + 2 * whole('accepts', ARGV[arg + 3], 0, 1000)
  one.last = one.marked + 2 * whole('marks', ARGV[arg + 4], 0, 1000) - 1
  if one.last > #ARGV then refuse('items', ARGV[arg]) end
  for place = one.uses, one.accepts - 1, 2 do
    local member = ARGV[place]
    if not string.match(member, '^f:.') and not string.match(member, '^p:.+:[123]$') then refuse('member', member) end
    whole('ends_ms', ARGV[place + 1], -(2 ^ 53), 2 ^ 53)
  end
  for place = one.accepts, one.marked - 1, 2 do whole('count', ARGV[place + 1], -1, 1000000) end
  for place = one.accepts, one.last - 1, 2 do
    local template = ARGV[place]
    if template == '' or string.find(template, ':', 1, true) then refuse('template_id', template) end
  end
  typed('zset', one.permits)
  typed('hash', one.subs, one.marks)
  typed('set', one.members, one.took)
  arg, users[user] = one.last + 1, one
end
if arg ~= #ARGV + 1 or #KEYS ~= 6 + 5 * #users then refuse('arguments', #ARGV) end

-- -- form_ids and prepay_ids ---------------------------------------------------------------------------

local function add_use(one, member, ends)
  ends = math.min(ends, now + WEEK)  -- as of one that is collected
  if redis.call('ZADD', one.permits, 'NX', ends, member) == 0 then return note(KNOWN) end
  add(books, 'stock', kind_of(member) .. ':' .. hour_of(ends), 1)
  add(books, 'ledger', 'collected:' .. kind_of(member), 1)
  note(NEW[kind_of(member)])
end

local function add_gone(one, member, until_ms)
  until_ms = math.min(until_ms, now + WEEK)
  local here = redis.call('ZSCORE', one.permits, member)
  if not here then
    redis.call('ZADD', one.permits, -until_ms, member)
    return note(GONE)
  end
  here = tonumber(here)
  if here <= now then return note(KNOWN) end
  redis.call('ZADD', one.permits, 'XX', -here, member)
  add(books, 'stock', kind_of(member) .. ':' .. hour_of(here), -1)
  count_use(books, member, here, 'void')
  note(LOST)
end

local function add_uses(one)
  if one.accepts == one.uses then return end
  local before, last = last_end(books, one.permits), 0
  for place = one.uses, one.accepts - 1, 2 do
    local member, ends = ARGV[place], tonumber(ARGV[place + 1])
    if math.abs(ends) <= now then
      note(ENDED)
    else
      last = math.max(last, math.min(math.abs(ends), now + WEEK))
      if ends > 0 then add_use(one, member, ends) else add_gone(one, member, -ends) end
    end
  end
  move_last_end(books, before, last_end(books, one.permits))
  -- never lowered: tombstones end no later than the last permit ever stored
  if last > now and last > redis.call('PEXPIRETIME', one.permits) then
    redis.call('PEXPIREAT', one.permits, last)
  end
end

-- -- subscriptions -------------------------------------------------------------------------------------

local function add_accepts(one, template, count)
  local value, here = redis.call('HGET', one.subs, template), count_of(one.subs, template)
  local void = read_mark(redis.call('HGET', one.marks, template))
  if not value and redis.call('HLEN', one.subs) >= MOST_TEMPLATES or here < 0 then
    return note(LEFT_OUT, math.abs(count))
  end
  if void >= at then return note(WITHDRAWN, math.abs(count)) end
  if count < 0 then  -- long-term, and no longer counted
    void_count(books, one.subs, template)
    return set_count(one.subs, template, -1)
  end
  set_count(one.subs, template, here + count)
  add(books, 'stock', 's:' .. template, count)
  add(books, 'ledger', 'collected:s', count)
  note(NEW.s, count)
end

local function take_accepts(one)
  if one.marked == one.accepts then return end
  local takes = counts and redis.call('SISMEMBER', one.took, one.openid) == 0
  for place = one.accepts, one.marked - 1, 2 do
    local count = tonumber(ARGV[place + 1])
    if takes then add_accepts(one, ARGV[place], count) else note(LEFT_OUT, math.abs(count)) end
  end
  if not takes then return end
  redis.call('SADD', one.took, one.openid)
  redis.call('SETBIT', KEYS[6], one.bucket, 1)
  redis.call('INCR', KEYS[5])
  for _, key in ipairs({ one.took, KEYS[5], KEYS[6] }) do redis.call('PEXPIRE', key, ttl) end
end

-- What is known of a template on both sides: the newest of each, and of the ids those that fit.
local function join_marks(one, template, mark)
  local mine = redis.call('HGET', one.marks, template)
  if not mine and redis.call('HLEN', one.marks) >= MOST_MARKED then return false end
  local void, voided, rest = read_mark(mine)
  local others_void, others_voided, others_rest = read_mark(mark)
  local floor, ids = string.match(rest, '^ (%d+)(.*)$')
  local others_floor, others_ids = string.match(others_rest, '^ (%d+)(.*)$')
  floor, ids = math.max(tonumber(floor or 0), tonumber(others_floor or 0)), ids or ''
  local joined = ''
  for id in string.gmatch(others_ids or '', ' %x+:%d+') do
    if #id == MARK and not string.find(ids, string.sub(id, 1, 12), 1, true) then joined = joined .. id end
  end
  ids = joined .. ids
  while #ids > MOST_MARKS * MARK do
    floor = math.max(floor, tonumber(string.sub(ids, 13, MARK)) or 0)
    ids = string.sub(ids, MARK + 1)
  end
  redis.call('HSET', one.marks, template, string.format('%d %d %d%s',
    math.max(void, others_void), math.max(voided, others_voided), floor, ids))
  return true
end

local function add_marks(one)
  local any = false
  for place = one.marked, one.last, 2 do any = join_marks(one, ARGV[place], ARGV[place + 1]) or any end
  if any then redis.call('PEXPIRE', one.marks, MARKS_TTL) end
end

for _, one in ipairs(users) do
  add_uses(one)
  take_accepts(one)
  add_marks(one)
  if redis.call('SADD', one.members, one.openid) == 1 then
    redis.call('SETBIT', KEYS[4], one.bucket, 1)
    redis.call('INCR', KEYS[3])
    note(JOINED)
  end
end
write_sums(books)
return did
