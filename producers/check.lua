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
