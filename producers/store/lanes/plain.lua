-- plain: one command on one key of a lane; refused, like every script, where the lane was divided.
--
-- Guarantee: what the command guarantees. It is for commands that change nothing the second time.
--
-- KEYS  1 key  of a lane  what the command is about, then further ones of the lane, for UNLINK
-- ARGV  1 command: HSET, HDEL or UNLINK, then what follows the key
-- Returns  what the command returns
--@include store/check
local command = ARGV[1]
if command ~= 'HSET' and command ~= 'HDEL' and command ~= 'UNLINK' then refuse('command', command) end
if command == 'UNLINK' then return redis.call(command, unpack(KEYS)) end
typed('hash', KEYS[1])
return redis.call(command, KEYS[1], unpack(ARGV, 2))
