#!lua
-- pass_look: look at some recipients of an ordered broadcast; whose last use ends soon is put into a slot.
--
-- Guarantee: whoever is put into a slot is remembered as hurried in the same step, and never again put
-- into one or queued from the bucket. Whoever is not, is left to the split: so a pass may miss
-- somebody whose bucket changes under it, and nobody is lost by that. A lost reply is harmless: the
-- place has moved, and the next call with the old one is told so.
--
-- KEYS  1 lane  hash  the lane's copy of the broadcast (and `due`, see need.lua)
-- Found on the way, with the lane's hash tag: permits:APP:OPENID, soon:ID:SLOT, hurried:ID:BUCKET,
-- recipients:ID, the audience's sets (bucket.lua)
-- ARGV  1 now_ms or '', 2 broadcast, 3 look that is expected ('BUCKET OFFSET'), 4 last: 1 when these
--       are the last buckets, 5 prefix of the lane, 6 margin_ms: what ends sooner cannot be used,
--       7 most that are looked at, then the audience's buckets, ascending from BUCKET on
-- Returns  {status, look, looked at, put into slots}; status 1 did a step, 0 is elsewhere, -1 not
--       running, 2 nothing is left to look at
--@include store/clock
--@include store/check
--@include audiences/bucket
--@include ordering/hurried
--@include lanes/need
local now = clock(ARGV[1])
local lane, id, expected, last, prefix = KEYS[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local FULL = 1000000  -- a pass that found so many ends: more ends in an hour than its users are thought to
local margin, most = whole('margin_ms', ARGV[6], 0, 2 ^ 42), whole('most', ARGV[7], 1, 4000)
local recipients = prefix .. 'recipients:' .. id
local has = redis.call('HMGET', lane, 'state', 'drop', 'verdict', 'app', 'audience', 'look', 'slots',
  'soonest', 'pass', 'hurried')
local look = has[6]
if not look or look == 'done' or look == 'rest' then return { 2, look or '', 0, 0 } end
if look ~= expected then return { 0, look, 0, 0 } end
if has[1] ~= 'running' or text_of(has[2]) ~= '' or text_of(has[3]) ~= '' then return { -1, look, 0, 0 } end
local from, width = string.match(text_of(has[7]), '^(%d+) (%d+)$')
from, width = whole('slots', from, 0, 2 ^ 53), whole('slots', width, 1, 2 ^ 42)
local at, offset = string.match(look, '^(%d+) (%d+)$')
at, offset = whole('look', at, 0, 2 ^ 21), whole('look', offset, 0, 2 ^ 42)
local whose = { prefix = prefix, app = has[4], audience = has[5] }
for arg = 8, #ARGV do
  bucket_is_sound(whose, ARGV[arg])
  typed('hash', hurried_of(prefix, id, ARGV[arg]))
end
typed('string', recipients)

local permits = prefix .. 'permits:' .. whose.app .. ':'
local usable, until_ms = now + margin, from + SLOTS * width
local soon, places, found, looked = {}, {}, 0, 0

local function look_at(bucket, skipped)
  local openids = members_of(whose, bucket)
  local size = #openids
  local upto = math.min(size, skipped + most - looked)
  looked = looked + math.max(upto - skipped, 0)
  local some = skipped == 0 and upto == size and openids or { unpack(openids, skipped + 1, upto) }
  if skipped > 0 or has[9] ~= '1' then some = without_hurried(prefix, id, bucket, some) end
  local place, mine = bucket .. ':', {}
  for i = 1, #some do
    local openid = some[i]
    local ends = tonumber(redis.pcall('ZREVRANGE', permits .. openid, 0, 0, 'WITHSCORES')[2])
    if ends and ends > usable and ends < until_ms then
      local slot = math.max(0, math.floor((ends - from) / width))
      local items = soon[slot]
      if not items then
        items = { name = string.format('%d', slot) }
        soon[slot] = items
      end
      items[#items + 1] = place .. openid
      mine[#mine + 1] = openid
      mine[#mine + 1] = items.name
    end
  end
  if #mine > 0 then places[#places + 1] = { bucket, mine } end
  return upto, upto >= size
end

look = last == '1' and 'done' or look
for arg = 8, #ARGV do
  local bucket = tonumber(ARGV[arg])
  local upto, is_whole = look_at(ARGV[arg], bucket == at and offset or 0)
  if not is_whole then
    look = string.format('%d %d', bucket, upto)
    break
  end
  if arg < #ARGV or last ~= '1' then look = string.format('%d 0', bucket + 1) else look = 'done' end
  if looked >= most or whose.looked >= 4 * most then break end
end

local soonest, spoiled, any_spoiled = num(has[8]), {}, false
local ttl = string.format('%d', math.max(redis.call('PTTL', lane), 0) + 604800000)
for slot, items in pairs(soon) do
  local key = soon_of(prefix, id, slot)
  local waiting = redis.pcall('RPUSH', key, unpack(items))
  if waiting == #items then redis.call('PEXPIRE', key, ttl) end
  if type(waiting) == 'table' then  -- somebody wrote into it: these go with the rest
    spoiled[items.name], any_spoiled = true, true
  else
    soonest = math.min(soonest, slot)
    found = found + #items
  end
end
for _, place in ipairs(places) do
  local hurried, mine = hurried_of(prefix, id, place[1]), place[2]
  for i = any_spoiled and #mine or 0, 2, -2 do
    if spoiled[mine[i]] then
      table.remove(mine, i)
      table.remove(mine, i - 1)
    end
  end
  if #mine > 0 then
    redis.call('HSET', hurried, unpack(mine))
    redis.call('PEXPIRE', hurried, ttl)
    redis.call('SETBIT', recipients, place[1], 1)
  end
end
if found > 0 then
  bump(lane, 'hurried', found)
  if num(has[10]) + found >= FULL then look = 'done' end
  redis.call('PEXPIRE', recipients, ttl)
end
redis.call('HSET', lane, 'look', look, 'soonest', soonest)
need(prefix, id, now + 1000)  -- should whoever looks now not go on
return { 1, look, looked, found }
