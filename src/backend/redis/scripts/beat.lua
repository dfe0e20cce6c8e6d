-- Notes that a worker lives, and forgets some that do not.
-- KEYS: workers by the time until which they count as live, hash of what they say of themselves
-- ARGV: worker, what it says, ms for which it counts as live
-- Reply: Redis' time in ms.
-- Repeated: changes nothing but the times.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[3]), ARGV[1])
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], worker)
  redis.call('HDEL', KEYS[2], worker)
end
return now
