#!lua
-- join: write a retry at its home, and name it in its family, once.
--
-- Guarantee: only while the family is as it was known, so that whom the retry is for is not whom
-- another one may be sending to. A second run with the same id changes nothing. The keeper is told in
-- the same step, so that a caller that dies leaves nothing behind.
--
-- KEYS  1 home  hash  the retry (and `due`, see need.lua)
--       2 root  hash  the home of the family's first broadcast
-- ARGV  1 now_ms or '', 2 ttl_ms, 3 family: the retries that the root named when they were looked at,
--       by blanks, then field, value … ; `created_at_ms` and `expires_at_ms` (now + expires_in_ms) are
--       set here, by the server's clock
-- Returns  1 created, 0 known, -1 the family has grown, -2 its first is gone
--@include store/clock
--@include store/check
--@include lanes/need
local now = clock(ARGV[1])
local prefix, id = string.match(KEYS[1], '^(.*:)home:(.*)$')
if redis.call('HEXISTS', KEYS[1], 'state') == 1 then return 0 end
local root = redis.call('HMGET', KEYS[2], 'state', 'family')
if not root[1] then return -2 end
if (root[2] or '') ~= ARGV[3] then return -1 end
local fields, expires_in = {}, nil
for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
if not id or #fields == 0 or #fields % 2 ~= 0 then refuse('fields', #fields) end
for i = 1, #fields, 2 do
  if fields[i] == 'expires_in_ms' then expires_in = fields[i + 1] end
end
whole('ttl_ms', ARGV[2], 1, 2 ^ 42)
local expires_at = now + whole('expires_in_ms', expires_in, 0, 2 ^ 42)
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('HSET', KEYS[1], 'created_at_ms', now, 'expires_at_ms', expires_at)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], 'family', (ARGV[3] == '' and '' or ARGV[3] .. ' ') .. id)
need(prefix, id .. ' home', now)
return 1
