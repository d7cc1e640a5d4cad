#!lua flags=allow-oom
-- recover: take back what a dead worker had in flight of one broadcast in one lane.
--
-- Guarantee: a form_id message goes back to the front of the queue, *resumed*, with its permit
-- held; a prepay_id or subscription one that was marked (posting.lua) was perhaps sent: it becomes
-- in_doubt and is never repeated; unmarked it was surely not sent (unless Redis may have forgotten the
-- mark: it was restarted since), and goes back as if it had never been taken, out of what its user had. A
-- message that has been tried `attempts` times is set aside, so that one that kills its worker again
-- and again ends: it keeps its permit and waits for an operator (aside.lua). It takes one page of the
-- flight at a time; run again it finds nothing: the entries no longer carry the dead worker's name.
--
-- KEYS  1 lane hash, 2 flight hash, 3 queue list, 4 sending zset, 5 stock, 6 ledger (and the rings,
--       daily:APP:DAY:BUCKET)
-- ARGV  1 now_ms or '', 2 dead, the worker, 3 broadcast, 4 prefix of the lane, 5 ttl_ms,
--       6 attempts, 7 lease_ms of a user's turn, 8 cursor ('0': the first page)
-- Returns  {next cursor ('0': that was the last page), resumed, in doubt, set aside, unsent}
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/ring
--@include lanes/need
--@include lanes/outcome
--@include lanes/capped
local now = clock(ARGV[1])
local lane, flight, queue, sending, stock, ledger =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local dead, id, prefix, ttl = ARGV[2], ARGV[3], ARGV[4], whole('ttl_ms', ARGV[5], 1, 2 ^ 42)
local attempts = whole('attempts', ARGV[6], 0, 2 ^ 32)
local lease = whole('lease_ms', ARGV[7], 0, 2 ^ 42)
local books = open_books(now, 0, stock, ledger)
local has = redis.call('HMGET', lane, 'state', 'drop', 'verdict', 'open', 'unjudged', 'app',
  'priority', 'unsure_at_ms', 'purpose')
if not is_sound(prefix, id) or not has[2] then refuse('the keys of the broadcast', id) end
rings_are_sound(prefix, has[6])
typed('zset', sending)
local unjudged = has[4] ~= '1' and num(has[5]) or 0
local app = has[6]
local resumed, doubted, aside, unsent, dropped = 0, 0, 0, 0, 0
local here = { prefix = prefix, app = app, now = now, ttl = ttl, sending = sending, lease = lease,
  books = books }
local drop, unsure_at = has[2] or '', num(has[8])

local function return_unsent(item, openid, held)
  hand_back(books, prefix .. 'permits:' .. app .. ':' .. openid, prefix .. 'subs:' .. app .. ':' .. openid,
    held.member, held.expires, held.since,
    prefix .. 'audience:' .. app .. ':all:' .. bucket_and_openid(item), openid)
  redis.call('HDEL', flight, item)
  if has[9] then count_back(prefix, app, id, has[9], item, held.since) end
  end_lease(here, openid, held)
  unsent = unsent + 1
  local left = left_as(here, id, item)
  if drop == '' and not left then return redis.call('LPUSH', queue, item) end
  local outcome = drop ~= '' and drop or 'cancelled'
  if left then write_outcome(here, id, item, outcome) end
  bump(lane, 'o:' .. outcome, 1)
  dropped = dropped + 1
end
local next_cursor, page = page_of(flight, ARGV[8])
for _, item in ipairs(page) do
  local held = held_as(flight, item)
  if held and held.worker == dead then
    local _, openid = bucket_and_openid(item)
    local frees_place = true
    if held.resumed == UNPOSTED and held.since > unsure_at then
      return_unsent(item, openid, held)
    elseif kind_of(held.member) ~= 'f' or has[2] ~= '' or left_as(here, id, item) then
      doubt(here, id, item, held)
      doubted = doubted + 1
    elseif held.tries + 1 >= attempts then
      write_flight(flight, item, 'aside', held.fence, held.member, held.expires, held.since,
        held.tries + 1, '1')
      end_lease(here, openid, held)
      aside = aside + 1
    else
      write_flight(flight, item, '-', held.fence, held.member, held.expires, held.since,
        held.tries + 1, '1')
      end_lease(here, openid, held)
      redis.call('LPUSH', queue, item)
      resumed = resumed + 1
      frees_place = false
    end
    if frees_place and unjudged > 0 then
      bump(lane, 'unjudged', -1)
      unjudged = unjudged - 1
    end
  end
end
if aside > 0 then bump(lane, 'aside', aside) end
if dropped > 0 then bump(lane, 'done', dropped) end
if doubted + aside + dropped > 0 then need(prefix, id, now) end  -- complete, or a place is free
if resumed + unsent > dropped then
  redis.call('PEXPIRE', queue, ttl)
  if has[1] == 'running' and has[3] == '' then join_ring(prefix, app, id, has[7]) end
  wake(prefix, app)
end
return { next_cursor, resumed, doubted, aside, unsent }
