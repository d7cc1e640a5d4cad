#!lua flags=allow-oom
-- keep: look after what is due in some lanes: put off, promote, and say what the keeper must do itself.
--
-- Guarantee: one worker at a time looks after a lane, by a lease that nobody can steal. What a
-- broadcast wants within its lane is done here: delayed messages whose time has come go to the front
-- of its queue, and a queue that may be taken from stands in the ring. What goes beyond the lane is
-- given to the keeper, and comes again should it not be done in time (done.lua). A need that is
-- written meanwhile is kept: it lies in `due`, what was given in `doing`. Lanes of one server may ride
-- in one call: they share what it may do, the first ones first, and what is broken in one leaves the
-- others alone.
--
-- KEYS  1 lease string (its name tells the lane's prefix), 2 due zset, 3 doing zset (member -> when it
--       comes again, ms), then the same of each further lane of this server
-- Found on the way, with the lane's hash tag: home:ID, lane:ID, delayed:ID, queue:ID, flight:ID, the
-- rings and `flying` (see keys.py)
-- ARGV  1 now_ms or '', 2 worker, 3 lease_ms, 4 most broadcasts, 5 messages (delayed ones), 6 ttl_ms,
--       7 time_ms that the keeper has for what it is given, 8 alone: 1 when there is only one lane,
--       then members that are to be due at once (the net): "ID" in each lane of the call, "ID home N"
--       in the Nth one of them
-- Returns  {now_ms, then per lane: held (1; 0 somebody else looks after it; -1 its keys are broken), when
--       the next is due (ms; '' nothing), n, then n rows, one per broadcast that wants something:
--       "member until_ms word word …"}; words: adopt, verdict, split, open, complete, canary (of a
--       lane), home, gone (at its home)
--@include store/clock
--@include store/check
--@include lanes/ring
--@include lanes/need
local now = clock(ARGV[1])
local worker, ttl = ARGV[2], whole('ttl_ms', ARGV[6], 1, 2 ^ 42)
local most, messages = whole('most', ARGV[4], 0, 4000), whole('messages', ARGV[5], -4000, 4000)
local lease_ms = whole('lease_ms', ARGV[3], 1, 2 ^ 42)
local until_ms = string.format('%d', now + whole('time_ms', ARGV[7], 0, 2 ^ 42))
local alone = ARGV[8] == '1'
for i = 1, #KEYS, 3 do
  if not string.match(KEYS[i], '{%d+}:keeper$') or not KEYS[i + 2] then refuse('no lane', KEYS[i]) end
end
local prefix  -- of the lane that is looked at

local AHEAD = 1500  -- a scheduled one is told of so long before its start (ms), so that it starts in time
local FAR = 300000  -- no delay is so long (ms): what lies further ahead is from before the clock was set back

-- Delayed messages whose time has come: the first due comes first. Returns when the next one is due.
local function promote(delayed, queue)
  if not is_a('zset', delayed) or not is_a('list', queue) then return end  -- somebody wrote into it
  local some = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, math.max(messages, 1))
  if #some == 0 then
    some = redis.call('ZRANGEBYSCORE', delayed, now + FAR, '+inf', 'LIMIT', 0, math.max(messages, 1))
  end
  if #some > 0 then
    for i = #some, 1, -1 do redis.call('LPUSH', queue, some[i]) end
    redis.call('ZREM', delayed, unpack(some))
    redis.call('PEXPIRE', queue, ttl)
    messages = messages - #some
  end
  local following = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  return following[2]
end

-- What a broadcast wants in this lane: words for the keeper, and when it wants something again.
local function look_in_lane(id)
  local lane, queue = prefix .. 'lane:' .. id, prefix .. 'queue:' .. id
  local has = redis.pcall('HMGET', lane, 'generation', 'state', 'verdict', 'drop', 'app', 'priority',
    'split', 'window', 'done', 'total', 'open', 'told', 'sweeping', 'canary')
  if not has[1] then return {} end
  local words, again = {}, nil
  local dropping = has[4] ~= ''
  local runs = has[2] == 'running' and has[3] == '' and not dropping
  if redis.call('EXISTS', prefix .. 'flight:' .. id) == 1 then
    redis.pcall('SADD', prefix .. 'flying', id)  -- an earlier version did not note it
  end
  if runs then
    again = promote(prefix .. 'delayed:' .. id, queue)
    local queued = num(redis.pcall('LLEN', queue))
    if queued > 0 and join_ring(prefix, has[5], id, has[6]) then wake(prefix, has[5]) end
    if has[7] == '' and queued < num(has[8]) / 2 then words[#words + 1] = 'split' end
  elseif dropping and has[7] ~= 'done' then
    words[#words + 1] = 'split'
  end
  if has[3] ~= '' then words[#words + 1] = 'verdict' end
  if has[13] then words[#words + 1] = 'adopt' end
  if has[11] == '1' and has[12] ~= '1' and not alone then words[#words + 1] = 'open' end
  local through = num(has[9]) >= num(has[10])
  if has[7] == 'done' and through or has[2] == 'finished' then
    words[#words + 1] = 'complete'
  elseif runs and has[11] ~= '1' and not alone and through == (num(has[14]) > 0) then
    words[#words + 1] = 'canary'  -- it has one and nobody to send to, or waits for one
  end
  return words, again
end

-- What it wants at its home: a look at all lanes, and its end in time.
local function look_at_home(id)
  local has = redis.pcall('HMGET', prefix .. 'home:' .. id, 'state', 'expires_at_ms', 'drop', 'ended_at_ms',
    'starts_at_ms')
  if has.err then return {} end
  if not has[1] then return { 'gone' } end
  local expires = num(has[2])
  if expires == 0 then expires = now + FAR end
  if has[4] or has[3] == 'late' or expires <= now then return { 'home' } end
  local starts = has[1] == 'scheduled' and num(has[5]) or 0
  if starts - AHEAD > now then return { 'home' }, math.min(starts - AHEAD, expires) end
  if starts > now then return { 'home' }, math.min(starts, expires) end
  return { 'home' }, expires
end

-- One lane: the lease, the net, and what is due. Returns held, when the next is due, and rows.
local function look(place)
  local lease, due, doing = KEYS[3 * place - 2], KEYS[3 * place - 1], KEYS[3 * place]
  prefix = string.sub(lease, 1, -7)
  if not (is_a('string', lease) and is_a('zset', due) and is_a('zset', doing)) then return -1, '', {} end
  local holder = redis.call('GET', lease)
  if holder and holder ~= worker then
    local left = redis.call('PTTL', lease)  -- longer than a lease lasts: the clock was set back
    if left >= 0 and left <= lease_ms then return 0, '', {} end
  end
  redis.call('SET', lease, worker, 'PX', lease_ms)

  for i = 9, #ARGV do
    local member, at = string.match(ARGV[i], '^(.* home) (%d+)$')
    if not at then need(prefix, ARGV[i], 0) elseif tonumber(at) == place then need(prefix, member, 0) end
  end
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', doing, '-inf', now, 'LIMIT', 0, most)) do
    redis.call('ZREM', doing, member)
    need(prefix, member, 0)  -- it was given, and not done in time
  end

  local rows = {}
  local left = (messages > 0 or place == 1) and most or 0
  local members = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, left)
  most = most - #members
  for _, member in ipairs(members) do
    local id, at_home = string.match(member, '^(%S+)(.*)$')
    local words, again = {}, nil
    if not id then  -- no broadcast has that name
    elseif at_home == ' home' then
      words, again = look_at_home(id)
    else
      words, again = look_in_lane(id)
    end
    if again then
      redis.call('ZADD', due, again, member)
    else
      redis.call('ZREM', due, member)
    end
    if #words > 0 then
      redis.call('ZADD', doing, until_ms, member)
      rows[#rows + 1] = string.gsub(member, ' ', '/') .. ' ' .. until_ms .. ' ' .. table.concat(words, ' ')
    end
    if messages <= 0 then break end
  end
  local following = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
  return 1, following[2] or '', rows
end

local answer = { string.format('%d', now) }
for place = 1, #KEYS / 3 do
  local held, next_ms, rows = look(place)
  answer[#answer + 1] = held
  answer[#answer + 1] = next_ms
  answer[#answer + 1] = #rows
  for _, row in ipairs(rows) do answer[#answer + 1] = row end
end
return answer
