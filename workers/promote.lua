-- promote: delayed messages whose time has come go to the front of the queue.
--
-- KEYS  1 lane hash, 2 delayed zset, 3 queue list
-- ARGV  1 unused, 2 now_ms or '', 3 broadcast id, 4 limit, 5 ttl_ms, 6 lane prefix
-- Returns  how many were promoted
--@include clock
--@include ring
local has = redis.call('HMGET', KEYS[1], 'state', 'verdict', 'drop', 'app', 'priority')
if has[1] ~= 'running' or has[2] ~= '' or has[3] ~= '' then return 0 end
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[4])
if #due > 0 then
  for i = #due, 1, -1 do redis.call('LPUSH', KEYS[3], due[i]) end  -- the first due comes first
  redis.call('ZREM', KEYS[2], unpack(due))
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
end
if redis.call('LLEN', KEYS[3]) > 0 and join_ring(ARGV[6], has[4], ARGV[3], has[5]) then
  wake(ARGV[6], has[4])
end
return #due
