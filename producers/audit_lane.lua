-- audit_lane: one look at a broadcast's messages in one lane.
--
-- KEYS  1 lane hash, 2 queue list, 3 delayed zset, 4 flight hash
-- Returns  {total, done, queued, delayed, in hands (flight entries of a worker), waiting (resumed
--       entries, which are queued or delayed too), kinds of all entries: form_id and prepay_id and
--       counted subscription uses held: f, p, s}
local has = redis.call('HMGET', KEYS[1], 'total', 'done')
local hands, waiting = 0, 0
local held = { f = 0, p = 0, s = 0 }
local entries = redis.call('HVALS', KEYS[4])
for _, entry in ipairs(entries) do
  local worker, member, expires = string.match(entry, '^(%S+) %S+ (%S+) (%S+)')
  if worker == '-' then waiting = waiting + 1 else hands = hands + 1 end
  local kind = string.sub(member, 1, 1)
  if kind ~= 's' or expires == '1' then held[kind] = held[kind] + 1 end
end
return { tonumber(has[1] or 0), tonumber(has[2] or 0), redis.call('LLEN', KEYS[2]),
         redis.call('ZCARD', KEYS[3]), hands, waiting, held.f, held.p, held.s }
