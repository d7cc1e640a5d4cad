-- open: let the flood into a lane, or give it a canary, as its copy of a broadcast stands.
--
-- Guarantee: a lane that has no copy yet stays without one. What is queued stands in the ring
-- afterwards, if it may be sent.
--
-- KEYS  1 lane hash, 2 queue list
-- ARGV  1 broadcast id, 2 lane prefix, 3 canary: permits that may be at risk here; '' opens it
-- Returns  1 written, 0 there is no copy
--@include ring
local lane, queue, id, prefix = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local has = redis.call('HMGET', lane, 'generation', 'state', 'verdict', 'drop', 'app', 'priority')
if not has[1] then return 0 end
if ARGV[3] == '' then
  redis.call('HSET', lane, 'open', 1)
else
  redis.call('HSET', lane, 'canary', ARGV[3])
end
if has[2] == 'running' and has[3] == '' and has[4] == '' and redis.call('LLEN', queue) > 0 then
  join_ring(prefix, has[5], id, has[6])
  wake(prefix, has[5])
end
return 1
