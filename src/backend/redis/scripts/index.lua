-- Notes instances and their statuses.
-- KEYS: instances by creation, hash of the notes, then one set per group of statuses
-- ARGV: of each instance: ID, created at and updated at in ms, and a digit per group: 1 if the instance is in it, else 0
-- Reply: OK. A note that is older than the one that is there changes nothing.
-- Repeated: changes nothing more.
-- A note is kept as '<updated at> <digits>': the instance is in no group that the one before did not name.
local groups = #KEYS - 2
for at = 1, #ARGV, 4 do
  local id, created, updated, inside = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local noted = redis.call('HGET', KEYS[2], id)
  local last, before
  if noted then last, before = string.match(noted, '^(%d+) (%d+)$') end
  if not last or tonumber(last) <= tonumber(updated) then
    redis.call('ZADD', KEYS[1], created, id)
    redis.call('HSET', KEYS[2], id, updated .. ' ' .. inside)
    for group = 1, groups do
      if string.byte(inside, group) == 49 then
        redis.call('ZADD', KEYS[2 + group], created, id)
      elseif before and string.byte(before, group) == 49 then
        redis.call('ZREM', KEYS[2 + group], id)
      end
    end
  end
end
return redis.status_reply('OK')
