-- bucket: whom a broadcast is for, of one bucket.
--   audience  set     openids, of one bucket; of one whose name begins with ~r they lie in rows
--   dropped   string  of an audience that was deleted; see drop.lua
--
-- whose: a table of prefix (of the lane), app and audience: a name, or names and operators by blanks,
-- each operator after the two that it is for: `vip active & churned -`. A bucket is read whole, in the
-- step that acts on it: so nobody is met twice, and nobody is passed over, whatever changes meanwhile.
-- An expression makes nothing in Redis. whose.looked: members read or looked up so far, so that a step
-- over many buckets can end in time.
--@include store/check
--@include lanes/rows
local MOST_NAMES = 16
local ASKED = 5000  -- names of one SMISMEMBER: Lua's stack holds some 8,000

local function set_of(whose, name, bucket)
  return whose.prefix .. 'audience:' .. whose.app .. ':' .. name .. ':' .. bucket
end

-- The expression as a tree, read once: a name, or an operator with left and right.
local function tree_of(whose)
  if whose.tree then return whose.tree end
  if not whose.app or not whose.audience then refuse('no audience', whose.app) end
  local stack, names = {}, {}
  for word in string.gmatch(whose.audience == '' and '.' or whose.audience, '%S+') do  -- a carrier has nobody
    if word == '&' or word == '|' or word == '-' then
      local right, left = table.remove(stack), table.remove(stack)
      if not left then refuse('no audience', whose.audience) end
      stack[#stack + 1] = { operator = word, left = left, right = right }
    else
      names[#names + 1] = word
      stack[#stack + 1] = { name = word }
    end
  end
  if #stack ~= 1 or #names > MOST_NAMES then refuse('no audience', whose.audience) end
  whose.tree, whose.names, whose.looked = stack[1], names, 0
  if #names > 1 then  -- of one that was deleted nothing can be left out any more
    for _, name in ipairs(names) do
      local dropped = whose.prefix .. 'dropped:' .. whose.app .. ':' .. name
      whose.over = whose.over or redis.call('EXISTS', dropped) == 1
    end
  end
  return whose.tree
end

-- Refuses what cannot be read; to be asked before the first write.
local function bucket_is_sound(whose, bucket)
  whole('bucket', bucket, 0, 2 ^ 20)
  tree_of(whose)
  for _, name in ipairs(whose.names) do typed('set', set_of(whose, name, bucket)) end
end

-- Which of the openids belong to it: true or false for each.
local function belong(whose, node, bucket, openids)
  local found = {}
  if node.name then
    local set = set_of(whose, node.name, bucket)
    for from = 1, #openids, ASKED do
      local some = redis.call('SMISMEMBER', set, unpack(openids, from, math.min(from + ASKED - 1, #openids)))
      for i = 1, #some do found[from + i - 1] = some[i] == 1 end
    end
    whose.looked = whose.looked + #openids
    return found
  end
  local left, right = belong(whose, node.left, bucket, openids), belong(whose, node.right, bucket, openids)
  for i = 1, #openids do
    if node.operator == '|' then
      found[i] = left[i] or right[i]
    else
      found[i] = left[i] and right[i] == (node.operator == '&')
    end
  end
  return found
end

-- How many it may have; noted for all below it.
local function most_of(whose, node, bucket)
  if node.name then
    node.most = redis.call('SCARD', set_of(whose, node.name, bucket))
  else
    local left, right = most_of(whose, node.left, bucket), most_of(whose, node.right, bucket)
    node.most = node.operator == '|' and left + right or node.operator == '&' and math.min(left, right) or left
  end
  return node.most
end

local into
local function all_of(whose, node, bucket)
  if node.most == 0 then return {} end
  if node.name then
    local openids = redis.call('SMEMBERS', set_of(whose, node.name, bucket))
    whose.looked = whose.looked + #openids
    return openids
  end
  local kept = {}
  if node.operator == '|' then
    into(whose, node, bucket, kept, {})
    return kept
  end
  local from, other, belongs = node.left, node.right, node.operator == '&'
  if belongs and other.most < from.most then from, other = other, from end
  local openids = all_of(whose, from, bucket)
  if #openids == 0 then return openids end
  local found = belong(whose, other, bucket, openids)
  for i = 1, #openids do
    if found[i] == belongs then kept[#kept + 1] = openids[i] end
  end
  return kept
end

-- Puts those of a node that were not seen yet into a list: each member of a union is met once.
function into(whose, node, bucket, list, seen)
  if node.operator == '|' then
    into(whose, node.left, bucket, list, seen)
    into(whose, node.right, bucket, list, seen)
    return
  end
  for _, openid in ipairs(all_of(whose, node, bucket)) do
    if not seen[openid] then
      seen[openid] = true
      list[#list + 1] = openid
    end
  end
end

-- The rows that the openids lie in; nothing when they lie in sets.
local function rows_of(whose)
  if whose.rows == nil then
    whose.rows = is_rows(whose.audience) and open_rows(whose.prefix, whose.app, whose.audience)
  end
  return whose.rows
end

-- The openids, each once, in no order.
local function members_of(whose, bucket)
  if rows_of(whose) then
    local openids = openids_in(whose.rows, bucket)
    whose.looked = whose.looked + #openids
    return openids
  end
  local tree = tree_of(whose)
  if whose.over then return {} end
  if not tree.name then most_of(whose, tree, bucket) end
  return all_of(whose, tree, bucket)
end

-- How many they are.
local function size_of(whose, bucket)
  if rows_of(whose) then
    local count = count_in(whose.rows, bucket)
    whose.looked = whose.looked + count
    return count
  end
  local tree = tree_of(whose)
  if tree.name then return redis.call('SCARD', set_of(whose, tree.name, bucket)) end
  return #members_of(whose, bucket)
end
