-- What the live workers say of themselves.
-- KEYS: workers by the time until which they count as live, hash of what they say of themselves
-- Reply: their entries, in no order. Changes nothing.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local reply = {}
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')) do
  reply[#reply + 1] = redis.call('HGET', KEYS[2], worker)
end
return reply
