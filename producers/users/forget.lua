#!lua flags=allow-oom
-- forget: take one user out of one lane: permits, subscriptions with their marks, receipts, what counts
-- for caps, and every audience.
--
-- Guarantee: each available use leaves the stock as void, or as expired when its time is over (I1);
-- sizes and bitmaps of the audiences stay exact; all of it in one step. A use that is held stays
-- held: when its message ends it is spent or void, and never comes back (permit.lua). Run again it
-- finds nothing.
--
-- KEYS  1 stock hash, 2 ledger hash, 3 sending zset, 4 permits zset, 5 subs hash, 6 receipts hash
--       then per audience: size string, buckets bitmap, members set (its bucket of this user), or its
--       rows, a hash (lanes/rows.lua)
--       (found by KEYS 4: dead:APP:DAY, doubted:APP, daily:APP:DAY:BUCKET)
-- ARGV  1 now_ms or '', 2 openid, 3 bucket
-- Returns  {uses and accepts that were available, audiences that had the user}
--@include store/clock
--@include store/check
--@include permits/permit
--@include permits/counts
--@include lanes/rows
local now = clock(ARGV[1])
local stock, ledger, sending, permits, subs = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local openid, bucket = ARGV[2], ARGV[3]
local books = open_books(now, 0, stock, ledger)
local uses, left = 0, 0

local before = last_end(books, permits)
local counts = counts_of(subs, stock)
local turn = tonumber(redis.call('ZSCORE', sending, openid) or now + 1)
whole('bucket', bucket, 0, 2 ^ 20)
if #KEYS % 3 ~= 0 then refuse('audiences', #KEYS) end
local is_in, rows = {}, {}
for key = 7, #KEYS, 3 do
  whole('size', redis.call('GET', KEYS[key]) or '0', -(2 ^ 53), 2 ^ 53)
  redis.call('GETBIT', KEYS[key + 1], bucket)
  if string.find(KEYS[key + 2], '}:rows:', 1, true) then
    typed('hash', KEYS[key + 2])
    rows[key] = { key = KEYS[key + 2], size = KEYS[key], buckets = KEYS[key + 1], texts = {}, at = {}, cuts = {} }
    is_in[key] = cut_row(rows[key], bucket, openid)
  else
    is_in[key] = redis.call('SISMEMBER', KEYS[key + 2], openid) == 1
  end
end

local found = redis.call('ZRANGEBYSCORE', permits, math.max(1, books.trimmed * HOUR), '+inf', 'WITHSCORES')
for i = 1, #found, 2 do
  local expires = tonumber(found[i + 1])
  add(books, 'stock', kind_of(found[i]) .. ':' .. hour_of(expires), -1)
  count_use(books, found[i], 0, expires > now and 'void' or 'expired')
  if expires > now then uses = uses + 1 end
end
move_last_end(books, before, nil)
for template, count in pairs(counts) do
  uses = uses + math.max(count, 1)
  void_count(books, subs, template)
end
redis.call('UNLINK', permits, subs, marks_of(subs), KEYS[6])
local dead = string.gsub(string.sub(permits, 1, -#openid - 2), '}:permits:', '}:dead:', 1)
local today = math.floor(now / 86400000)
for day = today - 1, today do redis.call('HDEL', string.format('%s:%d', dead, day), openid) end
local doubted = string.gsub(dead, '}:dead:', '}:doubted:', 1)
redis.pcall('HDEL', doubted, openid)
local daily = string.gsub(dead, '}:dead:', '}:daily:', 1)
for day = today - 2, today + 1 do  -- of the zone's days those that may still be there
  redis.pcall('HDEL', string.format('%s:%d:%s', daily, day, bucket), openid)
end
if turn <= now then redis.call('ZREM', sending, openid) end  -- one that lasts ends with its message

for key = 7, #KEYS, 3 do
  if is_in[key] and rows[key] then
    write_cuts(rows[key])
    left = left + 1
  elseif is_in[key] then
    redis.call('SREM', KEYS[key + 2], openid)
    left = left + 1
    redis.call('DECR', KEYS[key])
    if redis.call('EXISTS', KEYS[key + 2]) == 0 then redis.call('SETBIT', KEYS[key + 1], bucket, 0) end
  end
end
return { uses, left }
