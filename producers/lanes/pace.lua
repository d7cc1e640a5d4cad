-- pace: how far a broadcast was in this lane, before what is counted next; noted once a second.
--   pace  list  "at_ms settled answered", the newest right; one minute
-- now: ms. lane: the hash of its copy. paced_ms: of that copy, when it was noted last.
--@include store/check
local function note_pace(now, prefix, id, lane, paced_ms)
  local passed = now - num(paced_ms)
  if passed >= 0 and passed < 1000 then return end
  local has = redis.call('HMGET', lane, 'done', 'o:no_permit', 'o:cancelled', 'o:late',
    'o:suppressed', 'o:kept', 'o:capped')
  local done = num(has[1])
  local answered = done - num(has[2]) - num(has[3]) - num(has[4]) - num(has[5]) - num(has[6]) - num(has[7])
  local pace = prefix .. 'pace:' .. id
  redis.pcall('RPUSH', pace, string.format('%d %d %d', now, done, answered))
  redis.pcall('LTRIM', pace, -8, -1)
  redis.call('PEXPIRE', pace, 60000)
  redis.call('HSET', lane, 'paced_ms', string.format('%d', now))
end
