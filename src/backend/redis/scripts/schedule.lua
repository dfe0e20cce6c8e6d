-- Adds or re-times entries of one shard of a due-set.
-- KEYS: set, payloads
-- ARGV: 1 to only bring forward what is there, 2 to leave it as it is; then of each entry: time in ms, member, payload or ''
-- Reply: OK.
-- Repeated: changes nothing more.
for i = 2, #ARGV, 3 do
  local due, member, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local there = ARGV[1] ~= '0' and redis.call('ZSCORE', KEYS[1], member)
  if there then
    if ARGV[1] == '1' and tonumber(due) < tonumber(there) then redis.call('ZADD', KEYS[1], due, member) end
  else
    redis.call('ZADD', KEYS[1], due, member)
    if payload ~= '' then
      redis.call('HSET', KEYS[2], member, payload)
    else
      redis.call('HDEL', KEYS[2], member)
    end
  end
end
return redis.status_reply('OK')
