-- Removes or re-times claimed entries of one shard, each only if its time is still the claimed one.
-- KEYS: set, payloads
-- ARGV: of each entry: member, its claimed time in ms, its new time in ms or '' to remove it
-- Reply: OK.
-- Repeated: the times have changed, so nothing happens.
for i = 1, #ARGV, 3 do
  local member, due = ARGV[i], redis.call('ZSCORE', KEYS[1], ARGV[i])
  if due and tonumber(due) == tonumber(ARGV[i + 1]) then
    if ARGV[i + 2] == '' then
      redis.call('ZREM', KEYS[1], member)
      redis.call('HDEL', KEYS[2], member)
    else
      redis.call('ZADD', KEYS[1], ARGV[i + 2], member)
    end
  end
end
return redis.status_reply('OK')
