-- hurried: the recipients of an ordered broadcast who go before the others, in one lane.
--   soon     list  bucket:openid of those whose last use ends within one slot of time, until they are
--                  queued
--   hurried  hash  openid -> slot, of one bucket: whoever was ever put into a slot, until the bucket is
--                  split. So nobody is queued twice, whatever becomes of permits and members meanwhile
-- In the lane's copy of an ordered broadcast, and of no other:
--   look     'BUCKET OFFSET', how far this pass has looked; 'done', at all of them; 'rest', no pass is
--            left, and the buckets are split whole, without the hurried
--   pass     which one this is; slots  'FROM_MS WIDTH_MS'; soonest  the first slot that may hold
--            somebody; hurried  how many the slots hold
--   cursor   'ordered BUCKET': processes of an earlier version cannot read it, and keep off
--@include store/check
local SLOTS = 256  -- a broadcast's length is cut into so many: what ends within one is in no order

local function soon_of(prefix, id, slot) return string.format('%ssoon:%s:%d', prefix, id, slot) end
local function hurried_of(prefix, id, bucket) return prefix .. 'hurried:' .. id .. ':' .. bucket end

-- Of some openids of a bucket those that were never hurried, in the same order. A few are asked for;
-- for many it is cheaper to read whom there is.
local function without_hurried(prefix, id, bucket, openids)
  local hurried = hurried_of(prefix, id, bucket)
  local many = redis.call('HLEN', hurried)
  if #openids == 0 or many == 0 then return openids end
  local known, others = {}, {}
  if #openids <= 1000 and 4 * #openids < many then
    local slots = redis.call('HMGET', hurried, unpack(openids))
    for i = 1, #openids do known[openids[i]] = slots[i] end
  else
    for _, openid in ipairs(redis.call('HKEYS', hurried)) do known[openid] = true end
  end
  for i = 1, #openids do
    if not known[openids[i]] then others[#others + 1] = openids[i] end
  end
  return others
end
