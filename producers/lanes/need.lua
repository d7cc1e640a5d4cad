-- need: a broadcast wants something of the keeper, from a moment on.
--   due  zset  "ID" (in this lane) or "ID home" (at its home) -> when (ms)
-- Whoever makes the need writes it in the same script, so that no process that dies can leave it
-- behind. What it is the keeper sees for itself (keep.lua). at: 0 for at once.
local function need(prefix, member, at)
  redis.pcall('ZADD', prefix .. 'due', 'LT', string.format('%d', at), member)
end
