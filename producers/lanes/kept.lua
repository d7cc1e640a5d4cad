-- kept: the last uses of each user, which broadcasts leave to single messages.
-- keep: "M", then " TEMPLATE:M" of each template with a number of its own; '' where nothing is kept.
--@include store/check
--@include permits/permit

-- How many uses broadcasts of a template leave to a user.
local function kept_of(keep, template)
  if keep == '' then return 0 end
  local _, last = string.find(keep .. ' ', ' ' .. template .. ':', 1, true)
  return num(string.match(keep, '^%d+', last and last + 1 or 1))
end

-- Whether a user has uses, and no more than so many. A long-term subscription has no last one.
local function is_among_last(books, permits, subs, channel, template, kept)
  local uses
  if channel == 'subscribe' then
    uses = count_of(subs, template)
  else
    uses = num(redis.pcall('ZCOUNT', permits, string.format('(%d', books.now + books.margin), '+inf'))
  end
  return uses > 0 and uses <= kept
end
