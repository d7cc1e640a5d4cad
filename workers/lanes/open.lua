-- open: let the flood into a lane, or give it a canary, as its copy of a broadcast stands.
--
-- Guarantee: a lane that has no copy yet stays without one. What is queued stands in the ring
-- afterwards, if it may be sent. Opened: somebody was delivered, so whoever was refused here is
-- believed. A canary comes with the errors that it met in other lanes, so that K counts over all
-- of them (I7); a lane that has one keeps it as it stands, so this can be repeated.
--
-- KEYS  1 lane hash, 2 queue list, 3 stock, 4 ledger (found by the prefix: suspects:ID, permits:…,
--       subs:…)
-- ARGV  1 now_ms or '', 2 broadcast, 3 prefix of the lane, 4 canary: permits that may be at risk
--       here; '' opens it; then with a canary: template errors, refusals, unknown errors so far
-- Returns  1 written, 0 there is no copy
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/ring
local now = clock(ARGV[1])
local lane, queue, stock, ledger = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, prefix, canary = ARGV[2], ARGV[3], ARGV[4]
local books = open_books(now, 0, stock, ledger)
local has = redis.call('HMGET', lane, 'generation', 'state', 'verdict', 'drop', 'app', 'priority',
  'canary', 'channel', 'template')
if not has[1] then return 0 end
rings_are_sound(prefix, has[5])
typed('list', queue)
if canary ~= '' and canary ~= '0' then
  for i = 4, 7 do whole('count', ARGV[i], 0, 2 ^ 32) end
end
if canary == '' then
  redis.call('HSET', lane, 'open', 1, 'refusals', 0, 'told', 1)  -- whoever opens it opens all
  void_suspects(books, prefix, has[5], id, has[8], has[9])
elseif canary == '0' then
  redis.call('HSET', lane, 'canary', 0)
elseif (tonumber(has[7] or 0) or 0) == 0 then
  redis.call('HSET', lane, 'canary', canary, 'template_errors', ARGV[5], 'refusals', ARGV[6],
    'unknowns', ARGV[7])
end
if has[2] == 'running' and has[3] == '' and has[4] == '' and redis.call('LLEN', queue) > 0 then
  join_ring(prefix, has[5], id, has[6])
  wake(prefix, has[5])
end
return 1
