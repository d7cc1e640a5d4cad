-- aside: an operator's word on the messages of one broadcast that were set aside in one lane.
--
-- Guarantee: each is either back at the front of the queue, resumed with its permit and with all its
-- attempts anew, or in_doubt; of a broadcast that drops (cancelled, aborted, late), of which nothing
-- is sent any more, it is in_doubt. It takes one page of the flight at a time; run again it finds
-- nothing.
--
-- KEYS  1 lane hash, 2 flight hash, 3 queue list, 4 sending zset, 5 stock, 6 ledger (and the rings)
-- ARGV  1 now_ms or '', 2 broadcast, 3 prefix of the lane, 4 app, 5 ttl_ms,
--       6 verb: replay or doubt, 7 cursor ('0': the first page)
-- Returns  {next cursor ('0': that was the last page), how many there were}
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/ring
--@include lanes/need
--@include lanes/outcome
local now = clock(ARGV[1])
local lane, flight, queue, sending, stock, ledger =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, prefix, app, ttl = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local books = open_books(now, 0, stock, ledger)
local here = { prefix = prefix, app = app, now = now, ttl = ttl, sending = sending, lease = 0,
  books = books }
local found = 0
whole('ttl_ms', ttl, 1, 2 ^ 42)
rings_are_sound(prefix, app)
if not is_sound(prefix, id) then refuse('the keys of the broadcast', id) end
typed('zset', sending)
local replays = ARGV[6] == 'replay' and text_of(redis.call('HGET', lane, 'drop')) == ''
local next_cursor, page = page_of(flight, ARGV[7])
for _, item in ipairs(page) do
  local held = held_as(flight, item)
  if held and held.worker == 'aside' then
    found = found + 1
    if replays then
      write_flight(flight, item, '-', held.fence, held.member, held.expires, held.since, 0, '1')
      redis.call('LPUSH', queue, item)
    else
      doubt(here, id, item, held)
    end
  end
end
if found == 0 then return { next_cursor, 0 } end
bump(lane, 'aside', -found)
need(prefix, id, now)
if replays then
  if redis.call('HGET', lane, 'open') ~= '1' then bump(lane, 'unjudged', found) end
  redis.call('PEXPIRE', queue, ttl)
  local has = redis.call('HMGET', lane, 'state', 'priority')
  if has[1] == 'running' then join_ring(prefix, app, id, has[2]) end
  wake(prefix, app)
end
return { next_cursor, found }
