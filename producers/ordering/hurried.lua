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

-- Of some openids of a bucket those that were never hurried, in the same order.
local function without_hurried(prefix, id, bucket, openids)
  local hurried = hurried_of(prefix, id, bucket)
  if #openids == 0 or redis.call('EXISTS', hurried) == 0 then return openids end
  local others = {}
  for from = 1, #openids, 5000 do
    local last = math.min(from + 4999, #openids)
    local slots = redis.call('HMGET', hurried, unpack(openids, from, last))
    for i = from, last do
      if not slots[i - from + 1] then others[#others + 1] = openids[i] end
    end
  end
  return others
end
