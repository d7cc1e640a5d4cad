-- reply: the same token again returns the first answer, so that a lost reply is harmless.
-- key: string, this caller's last token and packed answer; kept 10 minutes. A caller runs one script
-- at a time, so its last answer is enough.

-- Returns the first answer to this token; nothing when it is new.
local function first_answer(key, token)
  local last = redis.call('GET', key)
  if not last or string.sub(last, 1, 32) ~= token then return end
  redis.call('PEXPIRE', key, 600000)  -- a write: WAIT looks at those of a connection alone (replicas.py)
  return cmsgpack.unpack(string.sub(last, 33))
end

-- Returns the reply, once it is kept.
local function answer(key, token, reply)
  redis.call('SET', key, token .. cmsgpack.pack(reply), 'PX', 600000)
  return reply
end
