-- check: what a script was given is looked at before its first write, so that none ends half-way.
local function refuse(what, value)
  error({ err = string.format('ERR %s: %s', what, string.sub(tostring(value), 1, 40)) })
end

-- A whole number as text, low <= number <= high.
local function whole(what, text, low, high)
  local number = tonumber(text)
  if not number or not (number >= low and number <= high) or number % 1 ~= 0 then refuse(what, text) end
  return number
end

-- A stored number that somebody may have spoiled: 0 when it is none.
local function num(text)
  local number = tonumber(text or 0)
  if not number or number ~= number or math.abs(number) > 2 ^ 53 then return 0 end
  return number
end

-- What was read, as text; '' when there is nothing, or the key holds something else.
local function text_of(value) return type(value) == 'string' and value or '' end

-- Keys that are not there yet, or of this type.
local function is_a(kind, key)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == kind
end

local function typed(kind, ...)
  for i = 1, select('#', ...) do
    local key = select(i, ...)
    if not key or not is_a(kind, key) then refuse('no ' .. kind, key) end
  end
end

-- names: keys of an audience in a lane: its size, its buckets, then the sets that are changed with them.
local function audience_is_sound(names)
  whole('size', redis.call('GET', names[1]) or '0', -(2 ^ 53), 2 ^ 53)
  typed('string', names[2])
  for place = 3, #names do typed('set', names[place]) end
end

-- A count in a hash, which is known to be one. A count that is no number (somebody wrote into it)
-- begins anew: it must not end a script half-way.
local function bump(key, field, by)
  if type(redis.pcall('HINCRBY', key, field, by)) == 'table' then redis.call('HSET', key, field, by) end
end
