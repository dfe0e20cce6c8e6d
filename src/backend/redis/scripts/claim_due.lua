-- Claims entries of one shard that are due by Redis' clock: moves their time ahead.
-- KEYS: set, payloads
-- ARGV: most, lease in ms
-- Reply: {their new time}, then of each entry: member, the time it was due at, payload or nil.
-- Repeated: claims others. What a lost reply had claimed comes back when the lease lapses.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, ARGV[1])
local leased = string.format('%.0f', now + ARGV[2])
local reply = {leased}
for i = 1, #due, 2 do
  redis.call('ZADD', KEYS[1], leased, due[i])
  reply[#reply + 1] = due[i]
  reply[#reply + 1] = due[i + 1]
  reply[#reply + 1] = redis.call('HGET', KEYS[2], due[i])
end
return reply
