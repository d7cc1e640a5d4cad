#!lua flags=allow-oom
-- settle: record the answers of up to a few hundred sends of one lane and app, in one step.
--
-- Guarantee: an answer counts only while the message is in flight under its own fence token, so
-- whoever was thought dead settles nothing twice (I3). Each one is exactly one of: settled (the
-- permit spent, handed back or void), swapped (void, and the user's next permit claimed here),
-- delayed (handed back or void), kept (the same permit again: perhaps sent, so *resumed*).
-- Counts, canary and breaker (I7) move in the same step. What surely was not sent no more counts for
-- its user's cap, and a next permit that is left to single messages is not claimed: kept. Whose permit
-- proves used after Redis forgot is noted (doubted.lua). The same token again returns the first
-- answer. If the worker dies just before it, recovery resumes the message.
--
-- KEYS  1 reply string, 2 sending zset, 3 fence string, 4 stock hash, 5 ledger hash
-- Found on the way, with the lane's hash tag: lane:ID, flight:ID, delayed:ID, queue:ID, tries:ID,
-- suspects:ID, doubts:ID, receipts:APP:OPENID, outcomes:ID:BUCKET, msgids:ID:BUCKET,
-- permits:APP:OPENID, subs:APP:OPENID, marks:APP:OPENID, audience:APP:all:BUCKET, rows:APP:NAME, doubted:APP, forgot,
-- daily:APP:DAY:BUCKET, the lists of listed.lua (see keys.py).
-- ARGV  1 token, 2 now_ms or '', 3 worker, 4 prefix of the lane, 5 app, 6 lease_ms of a user's turn,
--       7 margin_ms of permits, 8 ttl_ms of outcomes, 9 canary K, 10 keep: uses that broadcasts
--       leave to single messages, see kept.lua; '' none, then one row per answer, each an argument or a
--       line of one:
--       "id item fence action fate outcome errcode delay_ms streak skip msgid"
--       action: settle, swap, delay, keep, requeue (unsent: back to the front of the queue)
--       fate:   spent, back, void, void_all, doubt (spent, for it may have been used)
--       streak: ok, template, refusal, unknown, forgotten, used or - (see verdict.py)
--       skip:   f or p: a kind the next claim must not use; else -
-- Returns  per answer one string: "stale", "done" (outcome written), "later" (delayed or requeued),
--       an outcome (written: that one, instead: kept, or its broadcast was ended, or a receipt came first),
--       or "next MEMBER EXPIRES FENCE UNSURE" (swapped; unsure: 1 when Redis may have forgotten an
--       attempt with it); then "id flag" per broadcast that has something to say: opened, verdict,
--       complete, closed, queued (some are back)
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
--@include lanes/kept
--@include lanes/capped
--@include suppressions/listed
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
local now = clock(ARGV[2])
local sending, fence, stock, ledger = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, prefix, app, lease = ARGV[3], ARGV[4], ARGV[5], whole('lease_ms', ARGV[6], 0, 2 ^ 42)
local margin, ttl = whole('margin_ms', ARGV[7], 0, 2 ^ 42), whole('ttl_ms', ARGV[8], 1, 2 ^ 42)
local canary = whole('canary', ARGV[9], 0, 2 ^ 32)
local books = open_books(now, margin, stock, ledger)
sum_up(books)
local here = { prefix = prefix, app = app, now = now, ttl = ttl, sending = sending, lease = lease,
  books = books }
typed('zset', sending)
whole('fence', redis.call('GET', fence) or '0', 0, 2 ^ 53)
local doubted = doubted_of(prefix, app, now)
local DAY = 86400000
local PARK = 1000  -- before the first delivery a user's next permit waits for the others' verdicts

local broadcasts, order = {}, {}
local function broadcast(id)
  local known = broadcasts[id]
  if known then return known end
  if not is_sound(prefix, id) then return end
  local lane = prefix .. 'lane:' .. id
  local has = redis.pcall('HMGET', lane, 'open', 'drop', 'template_errors', 'refusals', 'unknowns',
    'unjudged', 'channel', 'template', 'state', 'verdict', 'priority', 'canary',
    'error_window', 'error_share', 'recent', 'recent_errors', 'unsure', 'paced_ms', 'audience',
    'purpose', 'nameless')
  if not has[7] or not has[8] then return end
  local one = {
    id = id, lane = lane, open = has[1] == '1', drop = has[2] or '', counts = {}, done = 0,
    -- before the first delivery: how many this lane may put at risk, when it may any
    limit = has[1] ~= '1' and num(has[12]) > 0 and num(has[12]) or canary,
    template_errors = num(has[3]), refusals = num(has[4]),
    unknowns = num(has[5]), unjudged = num(has[6]), channel = has[7],
    template = has[8], running = has[9] == 'running', verdict = has[10] or '', moved = false,
    window = num(has[13]), share = num(has[14] or 1),
    recent = num(has[15]), recent_errors = num(has[16]),
    unsure = has[17] == '1', paced_ms = has[18], places = num(has[12]),
    priority = has[11], ring = prefix .. (has[11] == '1' and 'first:' or 'ring:') .. app,
    flight = prefix .. 'flight:' .. id, delayed = prefix .. 'delayed:' .. id,
    queue = prefix .. 'queue:' .. id, tries = prefix .. 'tries:' .. id,
    suspects = prefix .. 'suspects:' .. id,
    rows = is_rows(has[19]) and open_rows(prefix, app, has[19]) or nil,
    purpose = has[20], nameless = has[21] == '1',
    kept = not is_carrier(id) and kept_of(ARGV[10], has[8]) or 0,
  }
  broadcasts[id] = one
  order[#order + 1] = one
  return one
end

-- A message waits until then: the keeper promotes it.
local function delay_until(one, item, at)
  redis.call('ZADD', one.delayed, at, item)
  redis.call('PEXPIRE', one.delayed, ttl)
  one.due = math.min(one.due or at, at)
end

local function count(one, field) one.counts[field] = (one.counts[field] or 0) + 1 end

local function pass_verdict(one, verdict)
  if one.verdict == '' and one.drop == '' then
    one.verdict = verdict
    redis.call('HSET', one.lane, 'verdict', verdict)
    need(prefix, one.id, now)
    redis.pcall('LREM', one.ring, 0, one.id)
  end
end

-- What one answer says about the whole broadcast.
local function judge(one, streak, errcode, keeps_place)
  if not one.open and not keeps_place then
    one.unjudged = math.max(0, one.unjudged - 1)
    one.moved = true
  end
  if streak == 'ok' then
    one.moved = one.moved or not one.open or one.template_errors > 0 or one.unknowns > 0
    if not one.open then one.opened = true end
    one.open, one.template_errors, one.refusals, one.unknowns = true, 0, 0, 0
  elseif streak == 'used' and not one.open then
    one.open, one.opened, one.moved = true, true, true
  elseif streak == 'template' then
    one.template_errors, one.moved = one.template_errors + 1, true
    if one.template_errors >= one.limit then pass_verdict(one, 'abort ' .. errcode) end
  elseif streak == 'refusal' and not one.open then
    one.refusals, one.moved = one.refusals + 1, true
    if one.refusals >= one.limit then pass_verdict(one, 'pause ' .. errcode) end
  elseif streak == 'unknown' then
    one.unknowns, one.moved = one.unknowns + 1, true
    if one.unknowns >= canary then pass_verdict(one, 'pause ' .. errcode) end
  end
  -- a mixture that uses up all places says nothing certain: somebody must look
  if not one.open and one.template_errors + one.refusals >= one.limit then
    pass_verdict(one, 'pause ' .. errcode)
  end
end

local function permit_keys(openid)
  return prefix .. 'permits:' .. app .. ':' .. openid, prefix .. 'subs:' .. app .. ':' .. openid
end

local function members_of(item)
  return prefix .. 'audience:' .. app .. ':all:' .. bucket_and_openid(item)
end

local function apply_fate(one, fate, openid, held)
  local permits, subs = permit_keys(openid)
  if fate == 'back' then
    hand_back(books, permits, subs, held.member, held.expires, held.since, members_of(held.item), openid)
  elseif fate == 'void' or fate == 'void_all' then
    count_use(books, held.member, held.expires, 'void')
    if fate == 'void_all' then
      if one.open then
        void_all(books, permits, subs, one.channel, one.template, now, members_of(held.item), openid)
      elseif not is_forgotten(members_of(held.item), openid) then
        -- a wrong appid refuses everybody: believed once somebody was delivered in any lane
        -- (open.lua), or at the broadcast's end (adopt.lua)
        local count = math.max(0, count_of(subs, one.template))
        redis.pcall('RPUSH', one.suspects, string.format('%s %d %d', openid, now, count))
        redis.call('PEXPIRE', one.suspects, ttl)
      end
    end
  else
    count_use(books, held.member, held.expires, 'spent')
  end
end

local function end_flight(one, item, openid, held)
  redis.call('HDEL', one.flight, item)
  end_lease(here, openid, held)
end

-- It surely was not sent: it is not what its user had today.
local function not_had(one, item, held)
  if one.purpose then count_back(prefix, app, one.id, one.purpose, item, held.since) end
end

-- The last answers of a broadcast: more than its share of errors among them pause it.
local BUDGETED = { failed = true, bad_data = true, in_doubt = true }
local function spend_budget(one, outcome, streak)
  if one.window == 0 then return end
  one.recent = one.recent + 1
  if BUDGETED[outcome] and streak ~= 'forgotten' and streak ~= 'used' then one.recent_errors = one.recent_errors + 1 end
  if one.recent >= one.window then
    if one.recent_errors > one.share * one.recent then pass_verdict(one, 'pause 0') end
    one.recent, one.recent_errors = 0, 0
  end
end

local function finish(one, item, openid, held, outcome, errcode, msgid, streak)
  local asked, value = outcome, outcome
  if errcode ~= '0' and outcome ~= 'delivered' then value = outcome .. ' ' .. errcode end
  if outcome == 'in_doubt' then
    local recorded
    outcome, recorded = doubtful_outcome(here, one.id, item, held)
    if outcome ~= 'in_doubt' then value = recorded end
  elseif outcome == 'delivered' and msgid ~= '-' then
    -- its receipt may have come first, and say that it failed after all
    local receipts, name = prefix .. 'receipts:' .. app .. ':' .. openid, one.template .. ' ' .. msgid
    local early = redis.pcall('HGET', receipts, name)
    if type(early) == 'string' then
      local code = string.match(early, '^%S+')
      if code ~= '0' then outcome, value = by_receipt(code) end
      redis.call('HDEL', receipts, name)  -- it was this send's: no doubt may take it
    end
  end
  if asked == 'delivered' and msgid == '-' and kind_of(held.member) == 's' and not one.nameless then
    one.nameless = true
    redis.call('HSET', one.lane, 'nameless', 1)  -- receipts by time must reckon with it (receipt.lua)
  end
  if outcome ~= 'delivered' and outcome ~= 'in_doubt' then not_had(one, item, held) end
  spend_budget(one, outcome, streak)
  local name = write_outcome(here, one.id, item, value)
  if msgid ~= '-' and name == openid then
    local bucket = bucket_and_openid(item)
    local key = prefix .. 'msgids:' .. one.id .. ':' .. bucket
    redis.pcall('HSET', key, openid, msgid)
    redis.call('PEXPIRE', key, DAY)
  end
  -- before the first delivery a wrong appid says so of everybody
  if errcode == '40003' and outcome == 'invalid_user' and one.open and name == openid
    and not is_forgotten(members_of(item), openid) then
    list_invalid(prefix, app, bucket_and_openid(item), openid)
  end
  if one.rows and outcome == 'delivered' then
    local bucket = bucket_and_openid(item)
    cut_row(one.rows, bucket, openid)  -- nobody is sent the same twice: no retry wants it
  end
  end_flight(one, item, openid, held)
  count(one, 'o:' .. outcome)
  one.done = one.done + 1
  return outcome == asked and 'done' or outcome
end

-- What a message ends as that may not wait any more: its broadcast was ended, or its user forgotten.
local function dropped_as(one, item)
  if one.drop ~= '' then return one.drop end
  return left_as(here, one.id, item) and 'cancelled' or nil
end

-- A message that is to wait: unless it may not.
local function wait(one, item, openid, held, tried, delay, errcode)
  end_flight(one, item, openid, held)
  if errcode ~= '-1' then not_had(one, item, held) end  -- "busy" does not say so
  local drop = dropped_as(one, item)
  if drop then
    if left_as(here, one.id, item) then write_outcome(here, one.id, item, drop) end
    count(one, 'o:' .. drop)
    one.done = one.done + 1
    return drop
  end
  if tried > 0 then
    redis.call('HSET', one.tries, item, tried)
    redis.call('PEXPIRE', one.tries, ttl)
  end
  delay_until(one, item, now + num(delay))
  return 'later'
end

local function swap(one, item, openid, tries, skip)
  local permits, subs = permit_keys(openid)
  if one.kept > 0 and is_among_last(books, permits, subs, one.channel, one.template, one.kept) then
    return nil, true
  end
  local member, expires = claim(books, permits, subs, one.channel, one.template, skip == '-' and '' or skip)
  if not member then return end
  local token = redis.call('INCR', fence)
  write_flight(one.flight, item, worker, token, member, expires, now, tries, as_claimed(member))
  redis.call('ZADD', sending, now + lease, openid)
  return string.format('next %s %d %d %d', member, expires, token, one.unsure and 1 or 0)
end

local function settle(row)
  local id, item, token, action, fate, outcome, errcode, delay, streak, skip, msgid = string.match(
    row, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  local one = id and broadcast(id)
  if not one then return 'stale' end
  -- single messages have nothing in common but their template: one's content says nothing of others
  if outcome == 'bad_data' and is_carrier(id) then streak = '-' end
  local _, openid = bucket_and_openid(item)
  local entry = redis.call('HGET', one.flight, item)
  local held = entry and read_flight(entry)
  if not held or held.worker ~= worker or held.fence ~= token then return 'stale' end
  held.item = item
  if errcode ~= '0' then count(one, 'e:' .. errcode) end
  if errcode == '41029' or streak == 'forgotten' and errcode ~= '0' and one.channel == 'template' then
    note_used(doubted, openid)
  end

  if action == 'keep' then
    if one.drop ~= '' or left_as(here, id, item) then
      judge(one, streak, errcode, false)
      one.doubted = true
      return doubt(here, id, item, held)
    end
    judge(one, streak, errcode, true)
    end_lease(here, openid, held)
    write_flight(one.flight, item, '-', token, held.member, held.expires, held.since,
      held.tries + 1, '1')
    delay_until(one, item, now + num(delay))
    return 'later'
  end

  if action == 'requeue' then
    local ends = one.drop ~= '' or left_as(here, id, item)
    judge(one, '-', errcode, held.resumed == '1' and not ends)
    if held.resumed == '1' then  -- an earlier attempt is unanswered: its permit stays with it
      if ends then
        one.doubted = true
        return doubt(here, id, item, held)
      end
      end_lease(here, openid, held)
      write_flight(one.flight, item, '-', token, held.member, held.expires, held.since, held.tries,
        '1')
    else
      apply_fate(one, 'back', openid, held)
      if dropped_as(one, item) then return wait(one, item, openid, held, 0, 0) end
      end_flight(one, item, openid, held)
      not_had(one, item, held)
    end
    redis.call('LPUSH', one.queue, item)
    redis.call('PEXPIRE', one.queue, ttl)
    if one.running and one.verdict == '' then
      join_ring(prefix, app, id, one.priority)
      one.queued = true
    end
    return 'later'
  end

  if action == 'swap' then
    apply_fate(one, fate, openid, held)
    local busy = num(redis.call('ZSCORE', sending, openid))
    busy = busy > now and busy ~= held.since + lease  -- by then the user's turn had passed on
    local dropped = dropped_as(one, item)
    local worn_out = fate == 'void' and not is_forgotten(members_of(item), openid)
      and note_dead(books, prefix, app, openid)
    local forgotten = one.unsure and one.channel == 'template' and is_doubted(doubted, openid)
    local row_next, is_kept
    if not dropped and not busy and not worn_out and not forgotten and (one.open or fate == 'back') then
      row_next, is_kept = swap(one, item, openid, fate == 'back' and held.tries + 1 or held.tries, skip)
    end
    if row_next and fate == 'back' then streak = '-' end  -- another kind may still go through
    judge(one, streak, errcode, row_next)
    if row_next then return row_next end
    if dropped then return wait(one, item, openid, held, 0, 0) end
    if fate == 'back' then return wait(one, item, openid, held, held.tries + 1, num(delay)) end
    if forgotten or (not one.open or busy) and not worn_out then return wait(one, item, openid, held, held.tries, PARK) end
    if is_kept then
      finish(one, item, openid, held, 'kept', '0', '-', streak)
      return 'kept'
    end
    return finish(one, item, openid, held, outcome, errcode, '-', streak)
  end
  judge(one, streak, errcode, false)
  apply_fate(one, fate, openid, held)
  if action == 'delay' then return wait(one, item, openid, held, held.tries + 1, num(delay), errcode) end
  return finish(one, item, openid, held, outcome, errcode, msgid, streak)
end

local results = {}
for i = 11, #ARGV do
  for row in string.gmatch(ARGV[i], '[^\n]+') do results[#results + 1] = settle(row) end
end
for _, one in ipairs(order) do
  if one.rows then write_cuts(one.rows) end
  if one.done > 0 then
    note_pace(now, prefix, one.id, one.lane, one.paced_ms)
    one.counts['done'] = one.done
    if one.window > 0 then
      redis.call('HSET', one.lane, 'recent', one.recent, 'recent_errors', one.recent_errors)
    end
  end
  for field, n in pairs(one.counts) do bump(one.lane, field, n) end
  if one.moved then
    redis.call('HSET', one.lane, 'open', one.open and 1 or 0, 'unjudged', one.unjudged,
      'template_errors', one.template_errors, 'refusals', one.refusals, 'unknowns', one.unknowns)
  end
  if one.due then need(prefix, one.id, one.due) end
  if one.done > 0 and not one.open then need(prefix, one.id, now) end  -- its canary may move on
  if one.moved and one.running and one.verdict == '' and one.drop == ''
    and (one.opened or not one.open and one.places > one.unjudged + one.template_errors + one.refusals)
    and redis.call('LLEN', one.queue) > 0 then  -- a place of the canary is free, or it opened
    join_ring(prefix, app, one.id, one.priority)
    if one.opened then wake(prefix, app) end
  end
  local flags = {}
  local complete = false
  if one.done > 0 or one.doubted then
    local has = redis.call('HMGET', one.lane, 'split', 'done', 'total')
    complete = has[1] == 'done' and num(has[2]) >= num(has[3])
  end
  if one.opened then
    void_suspects(books, prefix, app, one.id, one.channel, one.template)
    flags[#flags + 1] = one.id .. ' opened'
    need(prefix, one.id, now)
  end
  if one.verdict ~= '' then flags[#flags + 1] = one.id .. ' verdict ' .. one.verdict end
  if not one.open then flags[#flags + 1] = one.id .. ' closed' end
  if complete then
    flags[#flags + 1] = one.id .. ' complete'
    need(prefix, one.id, now)
  end
  if one.queued then flags[#flags + 1] = one.id .. ' queued' end
  for _, flag in ipairs(flags) do results[#results + 1] = flag end
end
write_sums(books)
return answer(KEYS[1], ARGV[1], results)
