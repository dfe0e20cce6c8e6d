-- Notes instances and their statuses.
-- KEYS: hash of the notes, then one set per group of statuses
-- ARGV: of each instance: ID, created at and updated at in ms, and the number of its group, from 1
-- Reply: OK. A note that is older than the one that is there changes nothing.
-- Repeated: changes nothing more.
-- A note is kept as '<updated at> <group>': the instance is in no other group.
for at = 1, #ARGV, 4 do
  local id, created, updated, group = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local noted = redis.call('HGET', KEYS[1], id)
  local last, before
  if noted then last, before = string.match(noted, '^(%d+) (%d+)$') end
  if not last or tonumber(last) <= tonumber(updated) then
    redis.call('ZADD', KEYS[1 + group], created, id)
    redis.call('HSET', KEYS[1], id, updated .. ' ' .. group)
    if before and before ~= group and KEYS[1 + before] then redis.call('ZREM', KEYS[1 + before], id) end
  end
end
return redis.status_reply('OK')
