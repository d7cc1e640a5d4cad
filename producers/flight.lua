-- flight: the entry of a message that may be unanswered, and what happens when it stays so.
--   flight  hash  bucket:openid -> worker fence member expires_at_ms since_ms tries resumed
-- worker is '-' while a resumed message waits in the queue or the delayed ones.
-- Expects permit.lua's functions, now, sending (key name) and lease (ms, of one user's turn).
local function read_flight(value)
  local worker, fence, member, expires, since, tries, resumed =
    string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  return { worker = worker, fence = fence, member = member, expires = tonumber(expires),
           since = tonumber(since), tries = tonumber(tries), resumed = resumed }
end

local function write_flight(flight, item, worker, fence, member, expires, since, tries, resumed)
  redis.call('HSET', flight, item, string.format('%s %s %s %d %d %d %s',
    worker, fence, member, expires, since, tries, resumed))
end

local function bucket_and_openid(item) return string.match(item, '^(%d+):(.*)$') end

local function write_outcome(prefix, id, item, value, ttl)
  local bucket, openid = bucket_and_openid(item)
  local key = prefix .. 'outcomes:' .. id .. ':' .. bucket
  redis.call('HSET', key, openid, value)
  if redis.call('HLEN', key) == 1 then redis.call('PEXPIRE', key, ttl) end
end

-- This message's turn with its user ends; not the turn of another message that came after it.
local function end_lease(openid, held)
  if held.worker == '-' then return end
  if tonumber(redis.call('ZSCORE', sending, openid) or 0) == held.since + lease then
    redis.call('ZREM', sending, openid)
  end
end

-- Perhaps sent, and never to be known from here: in_doubt, the permit counted as spent.
local function doubt(prefix, id, lane, flight, item, held, ttl)
  local _, openid = bucket_and_openid(item)
  write_outcome(prefix, id, item, 'in_doubt', ttl)
  count_use(held.member, held.expires, 'spent')
  redis.call('HDEL', flight, item)
  end_lease(openid, held)
  redis.call('HINCRBY', lane, 'o:in_doubt', 1)
  redis.call('HINCRBY', lane, 'done', 1)
end
