#!lua
-- rows_add: put rows of one lane beside those that a draft has there: a step of its loading.
--
-- Guarantee: an openid has one row, the first; size and bitmap say exactly what is there. The same
-- token again returns the first answer. Nobody reads a draft; when nothing is added any more, it ends.
--
-- KEYS  1 reply string, 2 rows hash, 3 size string, 4 buckets bitmap
-- ARGV  1 token, 2 ttl_ms of the draft, then per bucket: bucket number, rows (count), then of each its
--       openid and its values, each with a sign before it (lanes/rows.lua)
-- Returns  the places of the rows, from 1, whose openid had a row before
--@include store/reply
--@include store/check
--@include lanes/rows
local again = first_answer(KEYS[1], ARGV[1])
if again then return again end
local rows, size, buckets = KEYS[2], KEYS[3], KEYS[4]
local ttl_ms = whole('ttl_ms', ARGV[2], 1, 2 ^ 42)
typed('hash', rows)
typed('string', size, buckets)
whole('size', redis.call('GET', size) or '0', 0, 2 ^ 53)
local arg = 3
while arg <= #ARGV do
  whole('bucket', ARGV[arg], 0, 2 ^ 20)
  arg = arg + 2 + 2 * whole('rows', ARGV[arg + 1], 1, #ARGV - arg - 1)
end
if arg ~= #ARGV + 1 or arg == 3 then refuse('arguments', #ARGV) end

local known, place, added = {}, 0, 0
arg = 3
while arg <= #ARGV do
  local bucket, count = ARGV[arg], tonumber(ARGV[arg + 1])
  local before = redis.call('HGET', rows, bucket) or ''
  local parts = { before }
  arg = arg + 2
  for _ = 1, count do
    local openid, values = ARGV[arg], ARGV[arg + 1]
    place = place + 1
    if string.find(before, ROW .. openid .. VALUE, 1, true) then
      known[#known + 1] = place
    else
      parts[#parts + 1] = ROW .. openid .. values
      added = added + 1
    end
    arg = arg + 2
  end
  if #parts > 1 then
    redis.call('HSET', rows, bucket, table.concat(parts))
    redis.call('SETBIT', buckets, bucket, 1)
  end
end
if added > 0 then redis.call('INCRBY', size, added) end
for _, key in ipairs({ rows, size, buckets }) do redis.call('PEXPIRE', key, ttl_ms) end
return answer(KEYS[1], ARGV[1], known)
