-- Adds or re-times entries of one shard of a due-set.
-- KEYS: set, payloads
-- ARGV: of each entry: 1 to only bring forward what is there, 2 to leave it as it is, else 0; time in ms, member, payload or ''
-- Reply: OK.
-- Repeated: changes nothing more.
for i = 1, #ARGV, 4 do
  local mode, due, member, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local there = mode ~= '0' and redis.call('ZSCORE', KEYS[1], member)
  if there then
    if mode == '1' and tonumber(due) < tonumber(there) then redis.call('ZADD', KEYS[1], due, member) end
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
