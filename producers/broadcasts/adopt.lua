#!lua flags=allow-oom
-- adopt: a lane takes over a newer generation of a broadcast: its state, its rate, its weight, its end.
--
-- Guarantee: an older or equal generation changes nothing, so it can be repeated at will; a lane that
-- knows what its home does not says so (Redis forgot a move there, or the home was read before one), and
-- one that was cancelled or aborted is so for good. A lane has a copy once it has a generation; what else
-- may lie under its key stays, and becomes one.
-- What is queued or delayed of a broadcast that drops (cancelled, aborted, late) is dropped at once, and
-- counted too when nothing is in flight; else sweep.lua tells apart what was perhaps sent.
--
-- KEYS  1 lane hash, 2 queue list, 3 delayed zset, 4 flight hash, 5 tries hash, 6 ring list,
--       7 first (priority ring) list, 8 stock hash, 9 ledger hash (and `busy`, `due`,
--       `shares:APP`)
-- ARGV  1 now_ms or '', 2 broadcast, 3 generation, 4 state, 5 drop: an outcome or '', 6 ttl_ms,
--       7 wake, the channel, 8 prefix of the lane, 9 rate (per second), 10 window, 11 errcode (why it
--       is paused or ended; 0), 12 state_generation, of the last change of state, 13 weight (1..100), 14 carry: 1 when
--       what a day cannot carry goes on the next day by itself, 0 when that pauses it,
--       15 unsure, the generation since which whatever waits counts as perhaps sent; 0: none, 16 reason
--       of its state or '', 17 move, the token of the home's last one or '', then field, value … for a
--       lane that has no copy
-- Returns  {1 adopted, 0 known already or -1 the lane knows what the home does not, messages counted as
--       dropped, 1 when sweep.lua is to be run}, and for -1 what the lane knows: generation, state, errcode,
--       reason, move
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/ring
--@include lanes/need
--@include lanes/shares
--@include lanes/rows
local now = clock(ARGV[1])
local lane, queue, delayed, flight, tries, ring, first =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local books = open_books(now, 0, KEYS[8], KEYS[9])
local id, generation, state, drop, ttl, prefix =
  ARGV[2], whole('generation', ARGV[3], 0, 2 ^ 53), ARGV[4], ARGV[5], ARGV[6], ARGV[8]
whole('ttl_ms', ttl, 1, 2 ^ 42)
if #ARGV < 17 or #ARGV % 2 == 0 then refuse('arguments', #ARGV) end
local moved = whole('generation of the state', ARGV[12], 0, 2 ^ 53)
local weight = whole('weight', ARGV[13], 1, MOST_WEIGHT)
local carry = whole('carry', ARGV[14], 0, 1)
local unsure = whole('generation that is unsure', ARGV[15], 0, 2 ^ 53)
local known = redis.call('HMGET', lane, 'generation', 'state', 'errcode', 'reason', 'move')
local mine_is = known[1]
typed('list', queue)
typed('zset', delayed)
typed('hash', flight)
local app_is = redis.call('HGET', lane, 'app')
for i = 18, #ARGV, 2 do app_is = app_is or ARGV[i] == 'app' and ARGV[i + 1] end
rings_are_sound(prefix, app_is)
typed('hash', prefix .. 'shares:' .. app_is)
local function sweeping() return redis.call('HEXISTS', lane, 'sweeping') end
local mine = tonumber(mine_is or -1) or -1
local ENDED = { finished = true, cancelled = true, aborted = true }
local is_over = ENDED[known[2]] and known[2] ~= 'finished' and not ENDED[state]
-- it says of which generation it is: who is of an earlier version brings a newer one without it
local last = known[5] and string.match(known[5], '^' .. string.format('%d', mine) .. ' (.*)$')
local is_other = known[2] ~= state or last and last ~= ARGV[17]
if mine > generation or mine == generation and is_other or is_over then
  return { -1, 0, sweeping(), mine, known[2] or '', num(known[3]), known[4] or '', last or '' }
end
if drop == '' and sweeping() == 1 then return { 0, 0, 1 } end  -- what it dropped is counted first
if mine == generation then return { 0, 0, sweeping() } end
if not mine_is then
  for i = 18, #ARGV, 2 do redis.call('HSETNX', lane, ARGV[i], ARGV[i + 1]) end
end
if mine < moved then  -- not merely a new rate
  redis.call('HSET', lane, 'state', state, 'drop', drop, 'verdict', '', 'template_errors', 0,
    'refusals', 0, 'unknowns', 0, 'recent', 0, 'recent_errors', 0)
end
redis.call('HSET', lane, 'generation', generation, 'rate', ARGV[9], 'window', ARGV[10],
  'errcode', ARGV[11], 'carry', carry, 'reason', ARGV[16], 'move', ARGV[3] .. ' ' .. ARGV[17])
if unsure > 0 and mine < unsure then redis.call('HSET', lane, 'unsure', 1, 'unsure_at_ms', now) end
redis.call('PEXPIRE', lane, ttl)
local has = redis.call('HMGET', lane, 'app', 'priority', 'audience')
local app, priority = has[1], has[2]
redis.call('LREM', priority == '1' and first or ring, 0, id)
local has_turns = state == 'running' and drop == '' and priority ~= '1'
set_share(prefix, app, id, has_turns and weight or 1, ttl)
if is_rows(has[3]) then keep_rows(open_rows(prefix, app, has[3]), ttl, ENDED[state]) end
local dropped = 0
if drop ~= '' then
  local waited = redis.call('LLEN', queue) + redis.call('ZCARD', delayed)
  redis.call('UNLINK', queue, delayed, tries)
  if redis.call('EXISTS', flight) == 1 then
    bump(lane, 'sweeping', waited)
  elseif waited > 0 then
    dropped = waited
    bump(lane, 'o:' .. drop, dropped)
    bump(lane, 'done', dropped)
  end
elseif state == 'running' then
  if redis.call('LLEN', queue) > 0 then
    join_ring(prefix, app, id, priority)
    wake(prefix, app)
  end
  redis.call('PUBLISH', ARGV[7], 'go ' .. id)
end
if state == 'finished' and drop == '' then  -- all are judged: whoever was refused is believed
  local what = redis.call('HMGET', lane, 'channel', 'template')
  void_suspects(books, prefix, app, id, what[1], what[2])
end
if drop ~= '' or state ~= 'running' then redis.call('PUBLISH', ARGV[7], 'stop ' .. id) end
local is_short = state == 'finished' and num(redis.call('HGET', lane, 'done')) < num(redis.call('HGET', lane, 'total'))
if drop ~= '' or state == 'running' or is_short then need(prefix, id, now) end
return { 1, dropped, sweeping() }
