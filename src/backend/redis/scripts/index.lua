-- Notes instances and their statuses.
-- KEYS: instances by creation, hash of the times of the notes, then one set per group of statuses
-- ARGV: of each instance: ID, created at and updated at in ms, then per group 1 if the instance is in it, else 0
-- Reply: OK. A note that is older than the one that is there changes nothing.
-- Repeated: changes nothing more.
local groups = #KEYS - 2
for at = 1, #ARGV, 3 + groups do
  local id, created, updated = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local noted = redis.call('HGET', KEYS[2], id)
  if not noted or tonumber(noted) <= tonumber(updated) then
    redis.call('ZADD', KEYS[1], created, id)
    redis.call('HSET', KEYS[2], id, updated)
    for group = 1, groups do
      if ARGV[at + 2 + group] == '1' then
        redis.call('ZADD', KEYS[2 + group], created, id)
      else
        redis.call('ZREM', KEYS[2 + group], id)
      end
    end
  end
end
return redis.status_reply('OK')
