#!lua flags=allow-oom
-- question: the broadcast's template is in question; a lane takes nothing until that is answered.
--
-- Guarantee: nothing is taken from this lane, and the keeper looks again soon, until the broadcast's
-- state moves (adopt.lua), which clears the verdict. A lane that has a verdict keeps it, one that has
-- no copy stays without. Repeated, since when it is asked stays: a new state asks anew.
--
-- KEYS  1 lane hash
-- ARGV  1 now_ms or '', 2 broadcast, 3 prefix of the lane, 4 verdict, 5 again_ms: when the keeper looks
--       again
-- Returns  {since when it is asked (ms), now_ms}, or {0, now_ms}: nothing is to be asked here
--@include store/clock
--@include store/check
--@include lanes/need
local now = clock(ARGV[1])
local lane, id, prefix, verdict = KEYS[1], ARGV[2], ARGV[3], ARGV[4]
local again = whole('again_ms', ARGV[5], 1, 2 ^ 32)
if text_of(id) == '' or text_of(verdict) == '' then refuse('broadcast or verdict', id) end
typed('hash', lane)
local has = redis.call('HMGET', lane, 'generation', 'state', 'drop', 'verdict', 'questioned')
if not has[1] or has[2] ~= 'running' or text_of(has[3]) ~= '' then return { 0, now } end
local generation, since = string.match(text_of(has[5]), '^(%S+) (%d+)$')
if generation ~= has[1] or num(since) > now then
  since = string.format('%d', now)
  redis.call('HSET', lane, 'questioned', has[1] .. ' ' .. since)
end
if text_of(has[4]) == '' then redis.call('HSET', lane, 'verdict', verdict) end
redis.call('PUBLISH', 'wxb:wake', 'stop ' .. id)
need(prefix, id, now + again)
return { num(since), now }
