#!lua
-- select: put recipients of a broadcast into the set of those of a retry, by what became of them: a
-- step, of some buckets of one lane.
--
-- Guarantee: nobody is put in whom a broadcast of the family delivered to, nor, unless it is asked for,
-- one whom it perhaps did; nor a name that was forgotten. Size and bitmap say exactly what the sets
-- hold. Run again it changes nothing.
--
-- Of a broadcast with rows the row of each is copied, and the retry's recipients lie in rows too; whose
-- row is not kept any more is lost.
--
-- KEYS  1 size string, 2 buckets bitmap, then per bucket: members set; all of the retry's recipients
-- ARGV  1 prefix of the lane, 2 app, 3 broadcast, 4 ttl_ms of the KEYS, 5 outcomes, words by blanks,
--       6 errcodes by blanks; '': any, 7 doubts: 1 when those in doubt may be among them, 8 rest: an
--       audience as bucket.lua reads it, whose members without an outcome belong to them too; '': none,
--       9 family: ids of its other broadcasts, by blanks, 10 rows_from: the name of the broadcast's rows,
--       11 rows_to: of the retry's; '': they have none, then the bucket number of each set
-- Found on the way: outcomes:ID:BUCKET, audience:APP:NAME:BUCKET, rows:APP:NAME
-- Returns  {how many are new, how many are lost}
--@include store/check
--@include audiences/bucket
local prefix, app, id, ttl_ms, doubts, rest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[7] == '1', ARGV[8]
audience_is_sound(KEYS)
whole('ttl_ms', ttl_ms, 1, 2 ^ 42)
if #ARGV - 11 ~= #KEYS - 2 or #KEYS < 3 then refuse('arguments', #ARGV) end
local from_rows = ARGV[10] ~= '' and open_rows(prefix, app, ARGV[10]) or nil
local to_rows = from_rows and open_rows(prefix, app, ARGV[11]) or nil
if from_rows then typed('hash', from_rows.key, to_rows.key) end
local whose = { prefix = prefix, app = app, audience = rest }
for arg = 12, #ARGV do
  whole('bucket', ARGV[arg], 0, 2 ^ 20)
  if rest ~= '' then bucket_is_sound(whose, ARGV[arg]) end
end
local CHUNK = 5000

local function words(text)
  local set = {}
  for word in string.gmatch(text, '%S+') do set[word] = true end
  return set
end
local wanted, codes, any_code, family = words(ARGV[5]), words(ARGV[6]), ARGV[6] == '', {}
for other in string.gmatch(ARGV[9], '%S+') do family[#family + 1] = other end

-- Those of the openids whose outcome of a broadcast passes.
local function passing(openids, broadcast, bucket, passes)
  local outcomes, left = prefix .. 'outcomes:' .. broadcast .. ':' .. bucket, {}
  for from = 1, #openids, CHUNK do
    local some = { unpack(openids, from, math.min(from + CHUNK - 1, #openids)) }
    local found = redis.pcall('HMGET', outcomes, unpack(some))
    for i, openid in ipairs(some) do
      if passes(not found.err and found[i] or nil) then left[#left + 1] = openid end
    end
  end
  return left
end

local function not_delivered(value)
  local word = value and string.match(value, '^%S+')
  return word ~= 'delivered' and (doubts or word ~= 'in_doubt')
end

local function chosen(bucket)
  local openids = {}
  local found = redis.pcall('HGETALL', prefix .. 'outcomes:' .. id .. ':' .. bucket)
  for i = 1, #found, 2 do
    local word, code = string.match(found[i + 1], '^(%S+) ?(%-?%d*)')
    if word and wanted[word] and (any_code or codes[code == '' and '0' or code])
      and string.sub(found[i], 1, 1) ~= '~' and not_delivered(found[i + 1]) then
      openids[#openids + 1] = found[i]
    end
  end
  if rest ~= '' and (any_code or codes['0']) then
    local members = members_of(whose, bucket)
    for _, openid in ipairs(passing(members, id, bucket, function(value) return not value end)) do
      openids[#openids + 1] = openid
    end
  end
  for _, other in ipairs(family) do openids = passing(openids, other, bucket, not_delivered) end
  return openids
end

local lost = 0
-- Copies the rows of the openids in a bucket; returns how many are new.
local function copy_rows(bucket, openids)
  local parts, copied = { rows_in(to_rows, bucket) }, 0
  for _, openid in ipairs(openids) do
    if not place_of_row(to_rows, bucket, openid) then
      local values = values_of(from_rows, bucket, openid)
      if values then
        parts[#parts + 1] = ROW .. openid .. values
        copied = copied + 1
      else
        lost = lost + 1
      end
    end
  end
  if copied > 0 then redis.call('HSET', to_rows.key, bucket, table.concat(parts)) end
  return copied
end

local added = 0
for key = 3, #KEYS do
  local bucket = ARGV[key + 9]
  local openids = chosen(bucket)
  if to_rows then
    added = added + copy_rows(bucket, openids)
  else
    for from = 1, #openids, CHUNK do
      added = added + redis.call('SADD', KEYS[key], unpack(openids, from, math.min(from + CHUNK - 1, #openids)))
    end
  end
  if #openids > 0 then redis.call('SETBIT', KEYS[2], bucket, 1) end
end
if added > 0 then redis.call('INCRBY', KEYS[1], added) end
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ttl_ms) end
if to_rows then redis.call('PEXPIRE', to_rows.key, ttl_ms) end
return { added, lost }
