-- audit_lane: one page of a look at a broadcast's messages in one lane.
--
-- KEYS  1 lane hash, 2 queue list, 3 delayed zset, 4 flight hash
-- ARGV  1 cursor ('0': the first page of the flight)
-- Returns  {next cursor ('0': that was the last page), total, done, queued (with what a drop has yet
--       to count), delayed: as they are now; and of this page's entries: in hands (a worker's, or set
--       aside), waiting (resumed ones, which are queued or delayed too), form_id, prepay_id and counted
--       subscription uses held}
local has = redis.call('HMGET', KEYS[1], 'total', 'done', 'sweeping', 'swept')
local hands, waiting = 0, 0
local held = { f = 0, p = 0, s = 0 }
local found = redis.call('HSCAN', KEYS[4], ARGV[1], 'COUNT', 500)
for i = 2, #found[2], 2 do
  local worker, member, expires = string.match(found[2][i], '^(%S+) %S+ (%S+) (%S+)')
  if worker == '-' then waiting = waiting + 1 else hands = hands + 1 end
  local kind = string.sub(member, 1, 1)
  if kind ~= 's' or expires == '1' then held[kind] = held[kind] + 1 end
end
local queued = redis.call('LLEN', KEYS[2]) + tonumber(has[3] or 0) - tonumber(has[4] or 0)
return { found[1], tonumber(has[1] or 0), tonumber(has[2] or 0), queued, redis.call('ZCARD', KEYS[3]),
         hands, waiting, held.f, held.p, held.s }
