#!lua flags=allow-oom
-- move: one step of a broadcast's state at its home, with a new generation.
--
-- Guarantee: exactly the moves of the table below (a new rate, weight or start leaves the state and its
-- reason), and none starts before its time; the same token again returns the first answer.
-- If the process dies just after it, the lanes are behind; the keeper, told in the same step, brings the
-- newer generation. What a lane says of a state that is past moves nothing. Where Redis forgot moves
-- here that a lane knows, `renew` makes what is left newer than what the lane knows; a stop or an end
-- that somebody made is made again by that. What webhooks tell of is
-- stored in the same step (tell.lua), but for the ends of carriers, which are nobody's news.
--
-- KEYS  1 home  hash  the broadcast: state, generation, reason, errcode, drop, times (and `due`)
-- ARGV  1 token, 2 now_ms or '', 3 move, 4 reason or '', 5 errcode or '', 6 total (finish) or '',
--       7 ttl_ms from its end (an ending move), its start (reschedule) or now (reopen), 8 rate, the new one, sends
--       per second (rate), 9 known, the generation that the mover knew of, or '': a change of state
--       since forbids the move (renew: the lane's generation), 10 outcomes (finish), JSON of their counts, or '', 11 starts_at_ms, the
--       new one (reschedule), 12 ends_at_ms, the new one (reschedule) or '', 13 audience_size (start) or '',
--       14 weight, the new one (weight) or '', 15 carry: 1 when the rest of what a day cannot carry goes on
--       the next day by itself from now on (resume), or '', 16 seen, the state that the lane knows (renew), 17 last,
--       the token of the last move that it knows (renew)
-- Returns  {1 moved, 0 illegal or -1 unknown broadcast, state now, generation now}
--@include store/clock
--@include store/check
--@include lanes/need
--@include webhooks/tell
local now = clock(ARGV[2])
local LEGAL = {
  start  = { from = { scheduled = true }, to = 'running' },
  pause  = { from = { running = true }, to = 'paused', told = true },
  resume = { from = { paused = true }, to = 'running' },
  cancel = { from = { scheduled = true, running = true, paused = true }, to = 'cancelled',
             drop = 'cancelled', ends = true, told = true },
  abort  = { from = { running = true, paused = true }, to = 'aborted', drop = 'cancelled',
             ends = true, told = true },
  expire = { from = { scheduled = true, running = true, paused = true }, to = 'running',
             drop = 'late' },
  reschedule = { from = { scheduled = true } },
  rate   = { from = { scheduled = true, running = true, paused = true } },
  weight = { from = { scheduled = true, running = true, paused = true } },
  finish = { from = { running = true, paused = true }, to = 'finished', ends = true, told = true },
  reopen = { from = { finished = true }, to = 'running', lives = true, unsure = true },
  renew  = { from = {}, stays = true },
}
local AGAIN = { paused = LEGAL.pause, cancelled = LEGAL.cancel, aborted = LEGAL.abort }
local has = redis.call('HMGET', KEYS[1], 'state', 'generation', 'move_token', 'drop',
  'state_generation', 'app', 'starts_at_ms', 'ends_at_ms', 'expires_in_ms')
local state, generation = has[1], tonumber(has[2])
if not state then return { -1, '', 0 } end
if has[3] == ARGV[1] then return { 1, state, generation } end
local rule = LEGAL[ARGV[3]] or refuse('move', ARGV[3])
if not generation or #ARGV < 10 or not rule.to and not ARGV[8] or rule.stays and not ARGV[17] then
  refuse('generation or arguments', has[2])
end
if rule.stays then
  local lane_is = whole('generation of the lane', ARGV[9], 0, 2 ^ 53)
  local again = AGAIN[ARGV[16]]
  local is_open = LEGAL.cancel.from[state]
  -- the lane learned it from here: unless it was forgotten, this is as new, and says the same
  local is_other = ARGV[16] ~= state or ARGV[17] ~= (has[3] or '')
  if lane_is > generation or lane_is == generation and is_other or is_open and again and again.ends then
    generation = math.max(generation, lane_is)
    if is_open and again then rule = again end
    rule.from[state] = true
  end
end
if rule.ends or rule.lives then whole('ttl_ms', ARGV[7], 1, 2 ^ 42) end
local starts_at, ends_at, expires_at = num(has[7]), num(has[8]), nil
if ARGV[3] == 'reschedule' then
  whole('ttl_ms', ARGV[7], 1, 2 ^ 42)
  starts_at = whole('starts_at_ms', ARGV[11], 0, 2 ^ 42)
  if ARGV[12] ~= '' then ends_at = whole('ends_at_ms', ARGV[12], 0, 2 ^ 42) end
  expires_at = starts_at + num(has[9])
  if ends_at > 0 then expires_at = math.min(expires_at, ends_at) end
end
local weight = ARGV[3] == 'weight' and whole('weight', ARGV[14], 1, 100)
local size = text_of(ARGV[13]) ~= '' and whole('audience_size', ARGV[13], 0, 2 ^ 42)
local known = tonumber(ARGV[9] or '')
local outdated = ARGV[3] ~= 'renew' and known and known < num(has[5])
local early = ARGV[3] == 'start' and starts_at > now
if outdated or early or not rule.from[state] or (ARGV[3] == 'expire' and has[4] == 'late') then
  return { 0, state, generation }
end
-- a paused one finishes only when nothing is left of it; the caller has just seen that
redis.call('HSET', KEYS[1], 'generation', generation + 1, 'move_token', ARGV[1],
  ARGV[3] .. '_at_ms', now)
if rule.stays then
  redis.call('HSET', KEYS[1], 'state_generation', generation + 1)
elseif rule.to then
  redis.call('HSET', KEYS[1], 'state', rule.to, 'reason', ARGV[4], 'errcode', ARGV[5],
    'state_generation', generation + 1)
else
  if expires_at then
    redis.call('HSET', KEYS[1], 'starts_at_ms', starts_at, 'ends_at_ms', ends_at,
      'expires_at_ms', expires_at)
    redis.call('PEXPIRE', KEYS[1], ARGV[7] + math.max(0, starts_at - now))
  elseif weight then
    redis.call('HSET', KEYS[1], 'weight', weight)
  else
    redis.call('HSET', KEYS[1], 'rate', ARGV[8])
  end
  redis.call('HSETNX', KEYS[1], 'state_generation', generation)  -- the state is as old as that, or older
end
if rule.drop then redis.call('HSET', KEYS[1], 'drop', rule.drop) end
if rule.unsure or ARGV[3] == 'renew' then redis.call('HSET', KEYS[1], 'unsure_generation', generation + 1) end
if ARGV[3] == 'resume' and ARGV[15] == '1' then redis.call('HSET', KEYS[1], 'carry_over', 1) end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'total', ARGV[6]) end
if size then redis.call('HSET', KEYS[1], 'audience_size', size) end
if rule.ends then redis.call('HSET', KEYS[1], 'ended_at_ms', now) end
if rule.lives then redis.call('HDEL', KEYS[1], 'ended_at_ms', 'total') end
if rule.ends or rule.lives then redis.call('PEXPIRE', KEYS[1], ARGV[7]) end
local prefix, id = string.match(KEYS[1], '^(.*:)home:(.*)$')
need(prefix, id .. ' home', now)
if rule.told and not (rule.to == 'finished' and string.byte(id) == 109) then
  tell(teller_of(prefix, has[6], now), id, 'broadcast.' .. rule.to, cjson.encode({ state = rule.to,
    generation = string.format('%d', generation + 1), reason = ARGV[4], errcode = ARGV[5],
    total = ARGV[6], outcomes = ARGV[10] }))
end
return { 1, rule.to or state, generation + 1 }
