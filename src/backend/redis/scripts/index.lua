-- Notes instances and their statuses.
-- KEYS: hash of the notes, then one set per group of statuses
-- ARGV: of each instance: ID, created at and updated at in ms, the number of its group, from 1, and 1 if it has been in no other group yet, else 0
-- Reply: OK. A note that is older than the one that is there changes nothing.
-- Repeated: changes nothing more.
-- A note is kept as '<updated at> <group>': the instance is in no other group. Nothing is kept of one that is where it has been from the beginning, in
-- the first group: only notes of an instance that had its ID before are older. Of a million that wait, it would be a fourteenth of what Redis holds.
for at = 1, #ARGV, 5 do
  local id, created, updated, group, is_first = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local noted = redis.call('HGET', KEYS[1], id)
  local before, is_late
  if noted then
    local last
    last, before = string.match(noted, '^(%d+) (%d+)$')
    is_late = tonumber(last) > tonumber(updated)
  else
    before = '1'
    local other = redis.call('ZSCORE', KEYS[2], id)
    is_late = other and tonumber(other) > tonumber(created)
  end
  if not is_late then
    redis.call('ZADD', KEYS[1 + group], created, id)
    if noted or is_first ~= '1' then redis.call('HSET', KEYS[1], id, updated .. ' ' .. group) end
    if before ~= group then redis.call('ZREM', KEYS[1 + before], id) end
  end
end
return redis.status_reply('OK')
