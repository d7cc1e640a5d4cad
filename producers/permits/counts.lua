-- counts: what a user has of each template, however the hash of it came to be.
-- Returns template -> count (-1 unlimited), never 0, and how many fields were read. Of a hash that an older layout let grow without
-- an end only what the stock counts is read.
local MOST_FIELDS = 600
local function counts_of(subs, stock)
  local found = {}
  if redis.call('HLEN', subs) <= MOST_FIELDS then
    found = redis.call('HGETALL', subs)
  else
    local templates = {}
    for _, field in ipairs(redis.call('HKEYS', stock)) do
      if string.sub(field, 1, 2) == 's:' then templates[#templates + 1] = string.sub(field, 3) end
    end
    local values = #templates > 0 and redis.call('HMGET', subs, unpack(templates)) or {}
    for i, count in ipairs(values) do
      found[2 * i - 1], found[2 * i] = templates[i], count or ''
    end
  end
  local counts = {}
  for i = 1, #found, 2 do
    local count = tonumber(found[i + 1])
    if count and count ~= 0 and count % 1 == 0 and not string.find(found[i], ':', 1, true) then
      counts[found[i]] = count
    end
  end
  return counts, #found / 2
end
