#!lua
-- pass_begin: begin a pass over the buckets of a broadcast in one lane, or say that there is none left.
--
-- Guarantee: each pass begins once, after all that the one before it found is queued; run again it
-- changes nothing. It begins where the split is: what is split already stays so.
--
-- KEYS  1 lane  hash  the lane's copy of the broadcast (and `due`, see need.lua)
-- ARGV  1 broadcast, 2 prefix of the lane, 3 cursor that is expected, 4 number of the pass (1, 2 …),
--       5 from_ms and 6 width_ms of the slots; width 0: no pass is left, the rest is split whole
-- Returns  1 begun, or 0: it is begun already, or not to be begun
--@include store/check
--@include ordering/hurried
--@include lanes/need
local lane, id, prefix, expected = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local number = whole('number', ARGV[4], 1, 100)
local from, width = whole('from_ms', ARGV[5], 0, 2 ^ 53), whole('width_ms', ARGV[6], 0, 2 ^ 42)
local has = redis.call('HMGET', lane, 'state', 'drop', 'cursor', 'split', 'look', 'pass', 'hurried')
if has[1] ~= 'running' or text_of(has[2]) ~= '' or has[4] ~= '' or has[3] ~= expected then return 0 end
if num(has[6]) ~= number - 1 or has[5] and (has[5] ~= 'done' or num(has[7]) > 0) then return 0 end
if not has[5] and width == 0 then return 0 end
local bucket = whole('cursor', string.match(expected, '%d+$'), 0, 2 ^ 21)
redis.call('HSET', lane, 'cursor', 'ordered ' .. bucket, 'look', width > 0 and bucket .. ' 0' or 'rest',
  'pass', number, 'slots', string.format('%d %d', from, width), 'soonest', SLOTS, 'hurried', 0)
need(prefix, id, 0)
return 1
