-- bucket: whom a broadcast is for, of one bucket.
--   audience  set  openids, of one bucket
--
-- whose: a table of prefix (of the lane), app and audience. A bucket is read whole, in the step that
-- acts on it: so nobody is met twice, and nobody is passed over, whatever changes meanwhile.
--@include store/check
local function set_of(whose, bucket)
  return whose.prefix .. 'audience:' .. whose.app .. ':' .. whose.audience .. ':' .. bucket
end

-- Refuses what cannot be read; to be asked before the first write.
local function bucket_is_sound(whose, bucket)
  whole('bucket', bucket, 0, 2 ^ 20)
  if not whose.app or not whose.audience then refuse('no audience', bucket) end
  typed('set', set_of(whose, bucket))
end

-- The openids, each once, in no order.
local function members_of(whose, bucket) return redis.call('SMEMBERS', set_of(whose, bucket)) end

-- How many they are.
local function size_of(whose, bucket) return redis.call('SCARD', set_of(whose, bucket)) end
