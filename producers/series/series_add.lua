#!lua
-- series_add: write a series, once.
--
-- Guarantee: a name that is there already stays what it is.
--
-- KEYS  1 series hash, 2 names set, 3 due zset
-- ARGV  1 now_ms or '', 2 name, 3 member of due, 4 next_ms, its first tick, 5 most series of an app,
--       then field, value …
-- Returns  {1 new, 0 known or -1 there are too many, digest of what is there or ''}
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local series, names, due = KEYS[1], KEYS[2], KEYS[3]
local next_ms, most = whole('next_ms', ARGV[4], 0, 2 ^ 42), whole('most', ARGV[5], 1, 10000)
typed('zset', due)
local known = redis.call('HGET', series, 'digest')
if known then return { 0, known } end
if redis.call('SCARD', names) >= most then return { -1, '' } end
local fields = {}
for i = 6, #ARGV do fields[#fields + 1] = ARGV[i] end
if #fields == 0 or #fields % 2 ~= 0 then refuse('fields', #fields) end
redis.call('HSET', series, unpack(fields))
redis.call('HSET', series, 'state', 'active', 'next_ms', next_ms, 'created_at_ms', now)
redis.call('SADD', names, ARGV[2])
redis.call('ZADD', due, next_ms, ARGV[3])
return { 1, '' }
