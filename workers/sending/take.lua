-- take: fetch a batch of messages of one lane and app, and claim their permits, in one step.
--
-- Guarantee: broadcasts get turns (priority ring first, the others by their weight); a claimed permit belongs to exactly one
-- message, under a fence token that no other claim ever had; a user without a permit, or whose
-- permits proved dead too often today, is recorded at once, and so is one on the app's suppression list, or who had
-- as many of the broadcast's purpose today as there may be, or whose last uses are left to single messages, or whom
-- something reached that Redis forgot, perhaps this (doubted.lua);
-- a user who is being sent to waits without a permit (43108); before the first delivery at most `canary`
-- permits are unjudged, template-refused or refused (I7); a single message whose
-- time is over is late, unless it was perhaps sent, and so is one whose row is not kept any more; nothing of a broadcast is claimed outside its app's
-- send window, nor of a channel whose day is used up: what was told to goes on when that is over
-- (`carry`), other broadcasts are paused. The same token again returns the first answer.
-- If the worker dies just after it, recovery finds the claims under the worker's name in `flight`.
--
-- KEYS  1 reply    string  see reply.lua
--       2 first    list    ids, the priority ring
--       3 ring     list    ids
--       4 sending  zset    openid -> lease end (ms)
--       5 fence    string  last fence token
--       6 stock, 7 ledger  hashes, see permit.lua
-- Found on the way, all with the lane's hash tag (ARGV 4): lane:ID, queue:ID, delayed:ID,
-- flight:ID, tries:ID, mail:ID, rows:APP:NAME, outcomes:ID:BUCKET, permits:APP:OPENID,
-- subs:APP:OPENID, dead:APP:DAY, doubted:APP, forgot, pace:ID, shares:APP, daily:APP:DAY:BUCKET, busy, due, flying,
-- the lists of listed.lua (see keys.py).
-- ARGV  1 token, 2 now_ms or '', 3 worker, 4 prefix of the lane, 5 app, 6 max claims (1..1000),
--       7 lease_ms of a user's turn, 8 margin_ms of permits, 9 ttl_ms of outcomes,
--       10 horizon_ms: an allowance is what may be claimed in so long, 11 opens_ms and 12 closes_ms of
--       the app's send window that is open or comes next: outside it broadcasts leave the ring until
--       it opens, 13 holds: 1 when single messages wait for it too, 14 keep: uses that
--       broadcasts leave to single messages, see kept.lua; '' none, 15 caps: of purposes, see capped.lua; ''
--       none, 16 spent_template_ms and 17 spent_subscribe_ms: how long the day of a channel lasts whose
--       quota is used up; 0: it is not, then for broadcasts with a rate of their own: broadcast, allowance
--       (how many may be claimed now), the rate for which
--       that holds, and how long until one may be claimed (ms)
-- Returns  rows of strings: "B id low closed rate" opens a broadcast's rows (low: 1 when its queue
--       wants a split; closed: 1 while the canary waits), then "item member expires_at_ms fence tries
--       resumed payload" per claim (resumed: 1 when an earlier attempt with this permit may have
--       arrived, plus 2 when Redis may have forgotten one: it was restarted while the broadcast ran;
--       payload: of a single message, or the values of a row, else empty); "Q id" says that the lane is complete; the last
--       one, when the rings are not empty: "more" might be taken at once; "soon" as well, after many
--       that gave nothing; "rest": nothing more of what stands there can be taken now
--@include store/reply
--@include store/clock
--@include store/check
--@include permits/permit
--@include lanes/ring
--@include lanes/need
--@include lanes/pace
--@include lanes/rows
--@include lanes/outcome
--@include lanes/doubted
--@include lanes/shares
--@include lanes/kept
--@include lanes/capped
--@include suppressions/listed
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
local now = clock(ARGV[2])
local first, ring, sending, fence, stock, ledger =
  KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local worker, prefix, app = ARGV[3], ARGV[4], ARGV[5]
local max, lease = whole('max', ARGV[6], 1, 1000), whole('lease_ms', ARGV[7], 0, 2 ^ 42)
local margin, ttl = whole('margin_ms', ARGV[8], 0, 2 ^ 42), whole('ttl_ms', ARGV[9], 1, 2 ^ 42)
local horizon_ms = whole('horizon_ms', ARGV[10], 0, 2 ^ 32)
typed('zset', sending)
typed('set', prefix .. 'flying')
local lengths = { [first] = redis.call('LLEN', first), [ring] = redis.call('LLEN', ring) }
local books = open_books(now, margin, stock, ledger)
sum_up(books)
local here = { prefix = prefix, app = app, now = now, ttl = ttl, sending = sending, lease = lease,
  books = books }
local DELAY = 500
local FAR = 60000
local AT_ONCE = { 'no_permit', 'late', 'suppressed', 'kept', 'capped', 'in_doubt' }  -- outcomes without a send
local QUIET = 128  -- broadcasts visited for nothing: the next take goes on behind them
local AHEAD = 2200  -- a broadcast with a slow rate is back in the ring so long before its slot
local allowance, allowed_at, wait_ms = {}, {}, {}
local opens, closes = whole('opens_ms', ARGV[11], 0, 2 ^ 53), whole('closes_ms', ARGV[12], 0, 2 ^ 53)
local open_again  -- outside the window: when the keeper brings back what leaves the ring
if now < opens then open_again = opens elseif now >= closes then open_again = now + 1000 end
local holds = ARGV[13] == '1'
local keep, caps = ARGV[14], ARGV[15]
local today = day_of(caps, now)
local spent = { template = whole('spent_ms', ARGV[16], 0, 2 ^ 42),
  subscribe = whole('spent_ms', ARGV[17], 0, 2 ^ 42) }
for i = 18, #ARGV, 4 do
  wait_ms[ARGV[i]] = num(ARGV[i + 3])
  allowance[ARGV[i]], allowed_at[ARGV[i]] = num(ARGV[i + 1]), num(ARGV[i + 2])
end

local rows, claimed, looked, quiet_visits = {}, 0, 0, 0
local doubted = doubted_of(prefix, app, now)
local last_fence = tonumber(redis.call('INCRBY', fence, max)) - max

-- How many claims a broadcast may have in this turn, and how many of them may be fresh: before the
-- first delivery unjudged, template-refused and refused ones hold their place (K refusals in a row
-- pause), while a resumed message has its place already. Then, whether it is closed, and the places.
local function may_claim(id, has, want)
  local rate, closed = num(has[9]), has[5] ~= '1'
  if rate > 0 then
    if allowed_at[id] ~= rate then allowance[id], allowed_at[id], wait_ms[id] = nil, rate, nil end
    allowance[id] = allowance[id] or math.max(1, math.floor(rate * horizon_ms / 1000))
    want = math.min(want, allowance[id])
  end
  if not closed then return want, want, false, want end
  local places = num(has[6]) - num(has[7]) - num(has[8])
    - num(has[13])
  return want, math.min(want, places), true, places
end

local lists  -- of those who are sent nothing
local function is_suppressed(bucket, openid)
  lists = lists or lists_of(prefix, app)
  return #lists > 0 and is_listed(lists, bucket, openid)
end

-- What keeps a broadcast from a user to whom it could be sent: an outcome, or nothing.
local function barred_by(channel, template, openid, permits, subs, keys, daily, word)
  if keys.most then
    local had, text = had_of(daily, openid, keys.purpose, word)
    if had >= keys.most then return 'capped' end
    keys.had = text
  end
  if keys.kept > 0 and is_among_last(books, permits, subs, channel, template, keys.kept) then return 'kept' end
end

-- One message: returns the row of its claim, or nothing.
local function claim_for(item, id, channel, template, keys, tally)
  local bucket, openid = bucket_and_openid(item)
  if not openid then return end
  if redis.pcall('HEXISTS', prefix .. 'outcomes:' .. id .. ':' .. bucket, openid) ~= 0 then return end
  local until_ms = redis.call('ZSCORE', sending, openid)
  -- no turn is so long: one that lies further ahead is from before the clock was set back
  if until_ms and tonumber(until_ms) > now and tonumber(until_ms) < now + FAR then
    redis.call('ZADD', keys.delayed, now + DELAY, item)
    tally.delayed = tally.delayed + 1
    return
  end
  local member, expires, tried, resumed
  local deadline, payload
  if keys.mail then
    deadline, payload = string.match(text_of(redis.pcall('HGET', keys.mail, item)), '^(%d+) (.*)$')
  elseif keys.rows then
    payload = values_of(keys.rows, bucket, openid)
  end
  local gone = (keys.mail or keys.rows) and not payload
  local waiting = redis.call('HGET', keys.flight, item)
  if waiting then
    local held = read_flight(waiting)
    if not held or held.worker ~= '-' then return end  -- in flight: it is not a waiting message
    -- its content is gone, or its user wants nothing more, and it was perhaps sent
    if gone or is_suppressed(bucket, openid) then
      doubt(here, id, item, held)
      tally.doubted = tally.doubted + 1
      return
    end
    member, expires, tried, resumed = held.member, held.expires, held.tries, '1'
  elseif gone or keys.mail and tonumber(deadline or 0) <= now then
    write_outcome(here, id, item, 'late')
    tally.late = tally.late + 1
    return
  elseif is_suppressed(bucket, openid) then
    write_outcome(here, id, item, 'suppressed')
    tally.suppressed = tally.suppressed + 1
    return
  elseif keys.unsure and channel == 'template' and is_doubted(doubted, openid) then
    write_doubt(here, id, item, now, 'f:')
    write_outcome(here, id, item, 'in_doubt')
    tally.in_doubt = tally.in_doubt + 1
    return
  else
    local permits = prefix .. 'permits:' .. app .. ':' .. openid
    local subs = prefix .. 'subs:' .. app .. ':' .. openid
    local daily = keys.most and daily_key(prefix, app, today, bucket)
    local outcome = keys.bars
      and barred_by(channel, template, openid, permits, subs, keys, daily, keys.word) or 'no_permit'
    if outcome == 'no_permit' and (channel == 'subscribe' or not is_distrusted(books, prefix, app, openid)) then
      member, expires = claim(books, permits, subs, channel, template, '')
    end
    if not member then
      write_outcome(here, id, item, outcome)
      tally[outcome] = tally[outcome] + 1
      return
    end
    if daily then count_had(daily, openid, keys.word, keys.had) end
    tried = keys.tried and num(redis.call('HGET', keys.tries, item)) or 0
    resumed = as_claimed(member)
    tally.fresh = tally.fresh + 1
  end
  last_fence = last_fence + 1
  write_flight(keys.flight, item, worker, last_fence, member, expires, now, tried, resumed)
  redis.call('ZADD', sending, now + lease, openid)
  return string.format('%s %s %d %d %d %d %s', item, member, expires, last_fence, tried,
    (resumed == '1' and 1 or 0) + (keys.unsure and 2 or 0), payload or '')
end

-- One broadcast's turn. Returns false when it leaves the ring, for nothing of it can be claimed now.
local function visit(id, quantum)
  local lane = prefix .. 'lane:' .. id
  if not is_sound(prefix, id) then return false end
  local has = redis.pcall('HMGET', lane, 'state', 'verdict', 'channel', 'template', 'open', 'canary',
    'unjudged', 'template_errors', 'rate', 'split', 'window', 'drop', 'refusals',
    'unsure', 'paced_ms', 'audience', 'purpose', 'carry')
  if has[1] ~= 'running' or has[2] ~= '' or has[12] ~= '' then return false end
  if open_again and (holds or not is_carrier(id)) then
    need(prefix, id, open_again)
    return false
  end
  local spent_ms = spent[has[3]] or 0
  if spent_ms > 0 then
    -- of an earlier version, which did not ask, it goes on too; looked at again each minute, for the
    -- quota may be cleared
    if has[18] == '0' and not is_carrier(id) then
      redis.call('HSET', lane, 'verdict', 'pause 45009')
      need(prefix, id, now)
    else
      need(prefix, id, now + math.min(spent_ms, 60000))
    end
    return false
  end
  local want, fresh, closed, places = may_claim(id, has, quantum)
  local queue = prefix .. 'queue:' .. id
  local keys = { delayed = prefix .. 'delayed:' .. id, flight = prefix .. 'flight:' .. id,
                 tries = prefix .. 'tries:' .. id }
  keys.unsure = has[14] == '1'
  keys.tried = want > 0 and redis.call('EXISTS', keys.tries) == 1
  keys.mail = is_carrier(id) and prefix .. 'mail:' .. id or nil
  keys.rows = is_rows(has[16]) and open_rows(prefix, app, has[16]) or nil
  if not keys.mail then
    keys.purpose = has[17]
    keys.word = today and has[17] and counted_as(id, has[17])
    local most = keys.word and cap_of(caps, has[17]) or 0
    keys.most = most > 0 and most
    keys.kept = kept_of(keep, has[4])
    keys.bars = keys.most or keys.kept > 0
  end
  local tally = { no_permit = 0, late = 0, suppressed = 0, kept = 0, capped = 0, in_doubt = 0, doubted = 0, delayed = 0,
    fresh = 0 }
  local mine, passed = {}, {}
  local budget = 4 * math.max(want, 0) + 64  -- pops, so that a script stays short
  if fresh <= 0 and redis.call('EXISTS', keys.flight) == 0 then budget = 0 end
  while #mine < want and budget > 0 do
    local items = redis.call('LPOP', queue, math.min(want - #mine, budget))
    if not items then break end
    budget = budget - #items
    for _, item in ipairs(items) do
      if tally.fresh < fresh or redis.call('HEXISTS', keys.flight, item) == 1 then
        looked = looked + 1
        local row = claim_for(item, id, has[3], has[4], keys, tally)
        if row then mine[#mine + 1] = row end
      else
        passed[#passed + 1] = item
      end
    end
  end
  for i = #passed, 1, -1 do redis.call('LPUSH', queue, passed[i]) end
  if #passed > 0 then redis.call('PEXPIRE', queue, ttl) end
  local at_once = 0
  for _, outcome in ipairs(AT_ONCE) do
    at_once = at_once + tally[outcome]
    if tally[outcome] > 0 then
      note_pace(now, prefix, id, lane, has[15])
      has[15] = now
      bump(lane, 'o:' .. outcome, tally[outcome])
      bump(lane, 'done', tally[outcome])
    end
  end
  -- one in doubt had its place before the first delivery, and frees it
  local placed = tally.fresh - math.min(tally.doubted, num(has[7]))
  if closed and placed ~= 0 then bump(lane, 'unjudged', placed) end
  if tally.delayed > 0 then
    redis.call('PEXPIRE', keys.delayed, ttl)
    need(prefix, id, now + DELAY)
  end
  if #mine > 0 then
    redis.call('PEXPIRE', keys.flight, ttl)
    redis.call('SADD', prefix .. 'flying', id)
  end
  local left = redis.call('LLEN', queue)
  local low = has[10] ~= 'done' and not keys.mail and left < num(has[11]) / 2
  if low then need(prefix, id, now + 1000) end  -- should whoever is told now not split
  if #mine > 0 or low then
    rows[#rows + 1] = string.format('B %s %d %d %s', id, low and 1 or 0, closed and 1 or 0, has[9] or 0)
    for i = 1, #mine do rows[#rows + 1] = mine[i] end
  end
  claimed = claimed + #mine
  if allowance[id] then allowance[id] = allowance[id] - #mine end
  if left == 0 and has[10] == 'done' then
    local count = redis.call('HMGET', lane, 'done', 'total')
    if num(count[1]) >= num(count[2]) then
      rows[#rows + 1] = 'Q ' .. id
      need(prefix, id, now)
    end
  end
  if left == 0 then
    if closed and at_once + tally.doubted > 0 then need(prefix, id, now) end  -- its canary
    return false
  end
  if (wait_ms[id] or 0) > 3000 and allowance[id] <= 0 then
    need(prefix, id, now + wait_ms[id] - AHEAD)
    return false
  end
  -- no place is free, and none that has its place waits here: whoever frees one brings it back
  return not closed or places > tally.fresh or want == 0 or #mine >= want
end

local standing, more = 0, false
for _, turns in ipairs({ first, ring }) do
  local length = lengths[turns]
  local quantum, turn, quiet = math.ceil((max - claimed) / length), 0, 0
  local shares = turns == ring and length > 1 and claimed < max and shares_of(prefix, app, length)
  while length > 0 and quiet < length do
    if claimed >= max or looked >= 4 * max + 256 or quiet_visits >= QUIET then
      more = true
      break
    end
    local id = redis.call('LPOP', turns)
    local claimed_before, looked_before = claimed, looked
    if shares then quantum = turn_of(shares, id, max - claimed) end
    local stays = visit(id, math.min(quantum, max - claimed))
    if shares then end_turn(shares, id, claimed - claimed_before) end
    quiet = looked == looked_before and quiet + 1 or 0
    quiet_visits = quiet_visits + (quiet > 0 and 1 or 0)
    if stays and claimed >= max and claimed - claimed_before < quantum then
      redis.call('LPUSH', turns, id)  -- cut short: its turn goes on
    elseif stays then
      redis.call('RPUSH', turns, id)
    else
      length, quiet = length - 1, 0
    end
    turn = turn + 1
    if turn >= length then  -- all had a turn: what is left is shared anew
      quantum, turn = math.max(1, math.ceil((max - claimed) / length)), 0
    end
  end
  standing = standing + length
  if shares then keep_round(shares) end
end
write_sums(books)
if claimed > 0 then redis.call('PEXPIRE', sending, lease + 60000) end
if standing == 0 then
  redis.pcall('SREM', prefix .. 'busy', app)
else
  rows[#rows + 1] = more and (looked > 0 and 'more' or 'soon') or 'rest'
end
if #rows == 0 or #rows == 1 and standing > 0 then return rows end
return answer(KEYS[1], ARGV[1], rows)
