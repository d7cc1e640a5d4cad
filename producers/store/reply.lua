-- reply: the same token again returns the first answer, so that a lost reply is harmless.
-- Expects KEYS[1]: string, this caller's last token and packed answer; ARGV[1]: the token.
-- A caller runs one script at a time, so its last answer is enough. Kept 10 minutes.
do
  local last = redis.call('GET', KEYS[1])
  if last and string.sub(last, 1, 32) == ARGV[1] then
    return cmsgpack.unpack(string.sub(last, 33))
  end
end
local function answer(reply)
  redis.call('SET', KEYS[1], ARGV[1] .. cmsgpack.pack(reply), 'PX', 600000)
  return reply
end
