-- pace: how far a broadcast was in this lane, before what is counted next; noted once a second.
--   pace  list  "at_ms settled answered", the newest right; one minute
-- Expects now. paced_ms: of the lane's copy, when it was noted last.
local function note_pace(prefix, id, lane, paced_ms)
  local passed = now - tonumber(paced_ms or 0)
  if passed >= 0 and passed < 1000 then return end
  local has = redis.call('HMGET', lane, 'done', 'o:no_permit', 'o:cancelled', 'o:late')
  local done = tonumber(has[1] or 0)
  local answered = done - tonumber(has[2] or 0) - tonumber(has[3] or 0) - tonumber(has[4] or 0)
  local pace = prefix .. 'pace:' .. id
  redis.call('RPUSH', pace, string.format('%d %d %d', now, done, answered))
  redis.call('LTRIM', pace, -8, -1)
  redis.call('PEXPIRE', pace, 60000)
  redis.call('HSET', lane, 'paced_ms', string.format('%d', now))
end
