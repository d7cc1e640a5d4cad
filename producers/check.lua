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

-- A count in a hash, which is known to be one. A count that is no number (somebody wrote into it)
-- begins anew: it must not end a script half-way.
local function bump(key, field, by)
  if type(redis.pcall('HINCRBY', key, field, by)) == 'table' then redis.call('HSET', key, field, by) end
end
