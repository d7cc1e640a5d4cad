#!lua
-- create: write a broadcast at its home, once. A second run with the same id changes nothing.
--
-- Guarantee: the keeper is told in the same step, so that a creator that dies leaves nothing behind.
--
-- KEYS  1 home  hash  the broadcast (and `due`, see need.lua)
-- ARGV  1 now_ms or '', 2 ttl_ms, then field, value … ; `created_at_ms` and, unless given,
--       `expires_at_ms` (now + expires_in_ms) are set here, by the server's clock
-- Returns  {1 created or 0 known, state, generation, created_at_ms}
--@include store/clock
--@include store/check
--@include lanes/need
local now = clock(ARGV[1])
local known = redis.call('HGET', KEYS[1], 'state')
if not known then
  local fields, expires_in = {}, nil
  for i = 3, #ARGV do fields[#fields + 1] = ARGV[i] end
  if #fields == 0 or #fields % 2 ~= 0 then refuse('fields', #fields) end
  for i = 1, #fields, 2 do
    if fields[i] == 'expires_in_ms' then expires_in = fields[i + 1] end
  end
  whole('ttl_ms', ARGV[2], 1, 2 ^ 42)
  local expires_at = now + whole('expires_in_ms', expires_in, 0, 2 ^ 42)
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('HSET', KEYS[1], 'created_at_ms', now, 'expires_at_ms', expires_at)
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  local prefix, id = string.match(KEYS[1], '^(.*:)home:(.*)$')
  need(prefix, id .. ' home', now)
end
local now_is = redis.call('HMGET', KEYS[1], 'state', 'generation', 'created_at_ms')
return { known and 0 or 1, now_is[1], now_is[2], now_is[3] }
