-- inbox_store: keep one checked push of WeChat until it was acted on, or count one that is dropped.
--
-- Guarantee: a push is kept whole or not at all; never more than `most` wait. A signature that does
-- not cover its body is good for one body only, the first, and only while it is fresh; a sealed
-- push, whose body another signature covers, is always taken, and uses it up for all other bodies.
-- The same call again may keep the push twice, which is harmless: acting on it twice changes
-- nothing.
--
-- KEYS  1 inbox   list    `arrived_ms push`, the oldest left
--       2 counts  hash    stored, dropped, full -> pushes
--       3 seen    string  digest of the body that came with this signature (unused if digest is '')
-- ARGV  1 now_ms or '', 2 push ('' = only count it as dropped), 3 most (pushes),
--       4 timestamp_ms that was signed, 5 max_age_ms (0 = any), 6 digest of the body, or '',
--       7 sealed (1 or 0)
-- Returns  1 kept or counted, 0 full, -1 the signature came with another body, -2 not fresh
--@include store/clock
--@include store/check
local now = clock(ARGV[1])
local DAY = 86400000
local push, digest = ARGV[2], ARGV[6]
local most, signed = whole('most', ARGV[3], 0, 2 ^ 32), whole('timestamp_ms', ARGV[4], -(2 ^ 53), 2 ^ 53)
local max_age = whole('max_age_ms', ARGV[5], 0, 2 ^ 42)
if not digest then refuse('digest', digest) end
typed('list', KEYS[1])
typed('hash', KEYS[2])
typed('string', KEYS[3])
if max_age > 0 and math.abs(now - signed) > max_age then return -2 end
if digest ~= '' and max_age > 0 then
  -- twice: one that was signed ahead of our clock stays fresh for that long
  redis.call('SET', KEYS[3], digest, 'PX', 2 * max_age, 'NX')
  if ARGV[7] ~= '1' and redis.call('GET', KEYS[3]) ~= digest then return -1 end
end
local word = 'dropped'
if push ~= '' then
  word = redis.call('LLEN', KEYS[1]) < most and 'stored' or 'full'
end
if word == 'stored' then
  redis.call('RPUSH', KEYS[1], string.format('%d %s', now, push))
  redis.call('PEXPIRE', KEYS[1], 7 * DAY)
end
bump(KEYS[2], word, 1)
redis.call('PEXPIRE', KEYS[2], 30 * DAY)
return word == 'full' and 0 or 1
