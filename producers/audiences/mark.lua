#!lua flags=allow-oom
-- audience_mark: from here on an audience is being deleted: nobody finds it, no import adds to it.
--
-- KEYS  1 audiences  hash  name -> since when, marked while it is being deleted
-- ARGV  1 name, 2 mark: the value
-- Returns  0
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 0
