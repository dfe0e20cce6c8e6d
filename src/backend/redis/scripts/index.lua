-- Notes an instance and its status.
-- KEYS: instances by creation, hash of the times of the notes, then one set per group of statuses
-- ARGV: instance ID, created at and updated at in ms, then per group 1 if the instance is in it, else 0
-- Reply: 1, or 0 if a later note is there.
-- Repeated: changes nothing more.
local noted = redis.call('HGET', KEYS[2], ARGV[1])
if noted and tonumber(noted) > tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
for i = 3, #KEYS do
  if ARGV[i + 1] == '1' then
    redis.call('ZADD', KEYS[i], ARGV[2], ARGV[1])
  else
    redis.call('ZREM', KEYS[i], ARGV[1])
  end
end
return 1
