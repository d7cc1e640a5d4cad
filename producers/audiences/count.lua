#!lua
-- audience_count: how many an expression has in some buckets of a lane. It changes nothing.
--
-- KEYS  1 buckets  bitmap  of one of its audiences: it says where to run
-- ARGV  1 prefix of the lane, 2 app, 3 audience: as bucket.lua reads it, 4 most: after so many members
--       read or looked up no further bucket is begun, then buckets
-- Returns  {how many of the buckets were counted, members in them, members read or looked up}
--@include audiences/bucket
local whose = { prefix = ARGV[1], app = ARGV[2], audience = ARGV[3] }
local most, members, counted = whole('most', ARGV[4], 1, 2 ^ 42), 0, 0
for arg = 5, #ARGV do
  bucket_is_sound(whose, ARGV[arg])
  members = members + size_of(whose, ARGV[arg])
  counted = counted + 1
  if whose.looked >= most then break end
end
return { counted, members, whose.looked or 0 }
