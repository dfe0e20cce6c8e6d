-- Notes instances and their statuses.
-- KEYS: hash of the notes, then one set per group of statuses
-- ARGV: of each instance: ID; created at and updated at in ms; the number of its group, from 1; and 'first' if it has only ever been in the first group,
--       or the score that this script has answered, if this is what its record says since, else 'later'
-- Reply: {ID, score ...} of which nothing was noted, because it cannot be told whether this or what is there is newer: note what their records say now,
--        with that score. A note that is older than the one that is there changes nothing.
-- Repeated: changes nothing more.
-- A note is kept as '<updated at> <group>': the instance is in no other group. While nothing else was ever noted, a first note is kept only as a place in
-- the first group: of a million that wait, notes would be a fourteenth of what Redis holds. Such a place is taken for that of the instance that is noted
-- if both were created at the same millisecond; else it is of one that had the ID before or after it.
local untold = {}
for at = 1, #ARGV, 5 do
  -- Groups are text throughout: numbers and text are never the same.
  local id, created, updated, group, kind = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local noted = redis.call('HGET', KEYS[1], id)
  local last, before = string.match(noted or '0 1', '^(%d+) (%d+)$')
  local place = not noted and redis.call('ZSCORE', KEYS[2], id)
  if place and place ~= kind and tonumber(place) ~= tonumber(created) then
    untold[#untold + 1] = id
    untold[#untold + 1] = place
  elseif tonumber(last) <= tonumber(updated) then
    redis.call('ZADD', KEYS[1 + group], created, id)
    if noted or kind ~= 'first' then redis.call('HSET', KEYS[1], id, updated .. ' ' .. group) end
    if before ~= group then redis.call('ZREM', KEYS[1 + before], id) end
  end
end
return untold
