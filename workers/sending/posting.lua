-- posting: mark claims as being posted, just before they are.
--
-- Guarantee: a claim is marked only while it lies in flight under this worker and its own fence, and
-- nothing is posted that was not marked first; so what lies unmarked under a dead worker's name was
-- surely never sent (recover.lua). The mark is part of the entry and goes with it. Marked again, it
-- is marked: a lost reply is harmless.
--
-- KEYS  flight hashes, of broadcasts of one lane
-- ARGV  1 worker, then for each of KEYS the claims to mark: "item fence item fence …" (≤ 256 in all)
-- Returns  the fences of those that are not this worker's any more: they must not be posted
--@include lanes/flight
local refused, found = {}, {}
for key = 1, #KEYS do  -- all is read before anything is written
  local items, fences = {}, {}
  for item, fence in string.gmatch(ARGV[key + 1] or '', '(%S+) (%S+)') do
    items[#items + 1], fences[#fences + 1] = item, fence
  end
  found[key] = { items, fences, redis.call('HMGET', KEYS[key], unpack(items)) }
end
for key, one in ipairs(found) do
  local items, fences, entries, marked = one[1], one[2], one[3], {}
  for i, item in ipairs(items) do
    local mine, entry = ARGV[1] .. ' ' .. fences[i] .. ' ', entries[i]
    if not entry or string.sub(entry, 1, #mine) ~= mine then
      refused[#refused + 1] = fences[i]
    elseif string.sub(entry, -1) == UNPOSTED then
      marked[#marked + 1] = item
      marked[#marked + 1] = string.sub(entry, 1, -2) .. '0'
    end
  end
  if #marked > 0 then redis.call('HSET', KEYS[key], unpack(marked)) end
end
return refused
