#!lua flags=allow-oom
-- sweep: one page of what waited, perhaps sent, of a broadcast that drops, in one lane.
--
-- Guarantee: each resumed message that waited, and each that was set aside, becomes in_doubt; after the
-- last page the others that waited when the broadcast was dropped are counted as dropped. Until then
-- the lane keeps `sweeping` (how many waited) and `swept` (how many of them were resumed), and is not
-- complete. Pages may be run anew from the first one at any time.
--
-- KEYS  1 lane hash, 2 flight hash, 3 stock hash, 4 ledger hash, 5 sending zset
-- ARGV  1 now_ms or '', 2 broadcast, 3 prefix of the lane, 4 ttl_ms, 5 cursor ('0': the first)
-- Returns  {next cursor ('0': that was the last), in doubt, dropped}
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/need
--@include lanes/outcome
local now = clock(ARGV[1])
local lane, flight, stock, ledger, sending = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, prefix, ttl, cursor = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local books = open_books(now, 0, stock, ledger)
local has = redis.call('HMGET', lane, 'app', 'drop', 'sweeping', 'swept')
local app, drop = has[1], has[2]
if not has[3] then return { '0', 0, 0 } end
if not app or not drop then refuse('no app or drop', id) end
whole('ttl_ms', ttl, 1, 2 ^ 42)
local waited, swept = tonumber(has[3]) or 0, tonumber(has[4] or 0) or 0
typed('zset', sending)
-- a resumed message that waits has no lease
local here = { prefix = prefix, app = app, now = now, ttl = ttl, sending = sending, lease = 0,
  books = books }
if not is_sound(prefix, id) then refuse('the keys of the broadcast', id) end
local next_cursor, page = page_of(flight, cursor)
local doubted, resumed, aside = 0, 0, 0
for _, item in ipairs(page) do
  local held = held_as(flight, item)
  if held and (held.worker == '-' or held.worker == 'aside') then
    doubt(here, id, item, held)
    doubted = doubted + 1
    if held.worker == '-' then resumed = resumed + 1 else aside = aside + 1 end
  end
end
if aside > 0 then bump(lane, 'aside', -aside) end
if next_cursor ~= '0' then
  bump(lane, 'swept', resumed)
  return { next_cursor, doubted, 0 }
end
local dropped = math.max(0, waited - swept - resumed)
if dropped > 0 then
  bump(lane, 'o:' .. drop, dropped)
  bump(lane, 'done', dropped)
end
redis.call('HDEL', lane, 'sweeping', 'swept')
need(prefix, id, now)
return { '0', doubted, dropped }
