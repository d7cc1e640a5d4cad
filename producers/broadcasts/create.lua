#!lua
-- create: write a broadcast at its home, once. A second run with the same id changes nothing.
--
-- Guarantee: the keeper is told in the same step, so that a creator that dies leaves nothing behind.
--
-- KEYS  1 home  hash  the broadcast (and `due`, see need.lua)
-- ARGV  1 now_ms or '', 2 ttl_ms, from its start on, then field, value … ; `created_at_ms` and
--       `expires_at_ms` (expires_in_ms after its start, at ends_at_ms if that comes first) are set here, by
--       the server's clock. starts_at_ms: of a scheduled one
-- Returns  {1 created or 0 known, state, generation, created_at_ms}
--@include store/clock
--@include store/check
--@include lanes/need
local now = clock(ARGV[1])
local known = redis.call('HGET', KEYS[1], 'state')
if not known then
  local fields, given = {}, {}
  for i = 3, #ARGV do fields[#fields + 1] = ARGV[i] end
  if #fields == 0 or #fields % 2 ~= 0 then refuse('fields', #fields) end
  for i = 1, #fields, 2 do given[fields[i]] = fields[i + 1] end
  whole('ttl_ms', ARGV[2], 1, 2 ^ 42)
  local starts_at = math.max(now, whole('starts_at_ms', given.starts_at_ms or '0', 0, 2 ^ 42))
  local expires_at = starts_at + whole('expires_in_ms', given.expires_in_ms, 0, 2 ^ 42)
  local ends_at = whole('ends_at_ms', given.ends_at_ms or '0', 0, 2 ^ 42)
  if ends_at > 0 then expires_at = math.min(expires_at, ends_at) end
  redis.call('HSET', KEYS[1], unpack(fields))
  redis.call('HSET', KEYS[1], 'created_at_ms', now, 'expires_at_ms', expires_at)
  redis.call('PEXPIRE', KEYS[1], ARGV[2] + starts_at - now)
  local prefix, id = string.match(KEYS[1], '^(.*:)home:(.*)$')
  need(prefix, id .. ' home', now)
end
local now_is = redis.call('HMGET', KEYS[1], 'state', 'generation', 'created_at_ms')
return { known and 0 or 1, now_is[1], now_is[2], now_is[3] }
