-- doubted: users who were sent something that Redis forgot, nobody knows of which broadcast.
--   forgot   string  the last run of this lane's server that may have forgotten something; 8 days
--   doubted  hash    openid -> when WeChat said that a permit of theirs was used (ms)
-- Of the broadcasts that ran while Redis forgot (unsure), the one that meets the used permit need not
-- be the one that used it: none of them sends to this user. Nothing is noted of a Redis that never forgot.
--@include store/check
local DOUBTED_MS = 691200000  -- a broadcast lives for 7 days

-- One run's view of whether anything is to be noted here, and of whom anything was.
local function doubted_of(prefix, app, now)
  return { forgot = prefix .. 'forgot', key = prefix .. 'doubted:' .. app, now = now }
end

local function note_used(doubted, openid)
  if doubted.notes == nil then doubted.notes = redis.call('EXISTS', doubted.forgot) == 1 end
  if not doubted.notes then return end
  redis.pcall('HSET', doubted.key, openid, doubted.now)
  redis.call('PEXPIRE', doubted.key, DOUBTED_MS)
  doubted.anybody = true
end

local function is_doubted(doubted, openid)
  if doubted.anybody == nil then doubted.anybody = redis.call('EXISTS', doubted.key) == 1 end
  if not doubted.anybody then return false end
  local at = num(redis.pcall('HGET', doubted.key, openid))
  return at > doubted.now - DOUBTED_MS
end
