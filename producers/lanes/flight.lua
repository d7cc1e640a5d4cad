-- flight: the entry of a message that may be unanswered.
--   flight  hash  bucket:openid -> worker fence member expires_at_ms since_ms tries resumed
-- resumed: 1 when an earlier attempt may have arrived; n while a permit that is no idempotency key
-- (all but form_ids) is claimed and surely not posted yet (posting.lua), else 0
-- worker is '-' while a resumed message waits in the queue or the delayed ones, and 'aside' when it
-- was set aside, having outlived its workers too often: it waits for an operator.
--@include store/check
local UNPOSTED = 'n'
local function as_claimed(member) return string.sub(member, 1, 1) == 'f' and '0' or UNPOSTED end

local function read_flight(value)
  local worker, fence, member, expires, since, tries, resumed =
    string.match(value, '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  expires, since, tries = tonumber(expires), tonumber(since), tonumber(tries)
  if not expires or not since or not tries then return end  -- somebody wrote into it
  return { worker = worker, fence = fence, member = member, expires = expires, since = since,
           tries = tries, resumed = resumed }
end

-- Whether the keys that a broadcast's messages lie in are what they should be; the lane hash is read
-- anyway. Nothing here fails on what else may be spoiled: it is not written then.
local function is_sound(prefix, id)
  return is_a('hash', prefix .. 'flight:' .. id) and is_a('list', prefix .. 'queue:' .. id)
    and is_a('zset', prefix .. 'delayed:' .. id) and is_a('hash', prefix .. 'tries:' .. id)
end

local function write_flight(flight, item, worker, fence, member, expires, since, tries, resumed)
  redis.call('HSET', flight, item, string.format('%s %s %s %d %d %d %s',
    worker, fence, member, expires, since, tries, resumed))
end

local PAGE = 100  -- entries that one script looks at: what each costs keeps the whole below 5 ms

-- One page of the entries' items; returns the next cursor, '0' after the last page. What one page
-- changes may come again in it: look at each as it is now, by held_as.
local function page_of(flight, cursor)
  local found = redis.call('HSCAN', flight, cursor, 'COUNT', PAGE)
  local items = {}
  for i = 1, #found[2], 2 do items[#items + 1] = found[2][i] end
  return found[1], items
end

local function held_as(flight, item)
  local entry = redis.call('HGET', flight, item)
  return entry and read_flight(entry)
end

-- A carrier's id begins with m: it carries single messages, each with a payload of its own.
local function is_carrier(id) return string.byte(id) == 109 end

local function bucket_and_openid(item) return string.match(item, '^(%d+):(.*)$') end
