#!lua
-- create: write a broadcast at its home, once. A second run with the same id changes nothing.
--
-- Guarantee: the keeper is told in the same step, so that a creator that dies leaves nothing behind.
--
-- KEYS  1 home  hash  the broadcast (and `due`, see need.lua)
-- ARGV  1 ttl_ms, 2 now_ms or '', then field, value … ; `created_at_ms` and, unless given,
--       `expires_at_ms` (now + expires_in_ms) are set here, by the server's clock
-- Returns  {1 created or 0 known, state, generation, created_at_ms}
--@include clock
--@include need
local known = redis.call('HGET', KEYS[1], 'state')
if not known then
  local fields = {}
  for i = 3, #ARGV do fields[#fields + 1] = ARGV[i] end
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('HSET', KEYS[1], 'created_at_ms', now,
    'expires_at_ms', now + redis.call('HGET', KEYS[1], 'expires_in_ms'))
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  local prefix, id = string.match(KEYS[1], '^(.*:)home:(.*)$')
  need(prefix, id .. ' home', now)
end
local now_is = redis.call('HMGET', KEYS[1], 'state', 'generation', 'created_at_ms')
return { known and 0 or 1, now_is[1], now_is[2], now_is[3] }
