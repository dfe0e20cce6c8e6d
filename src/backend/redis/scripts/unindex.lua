-- Forgets instances.
-- KEYS: as in index.lua
-- ARGV: of each instance: ID, and '' or when it was created in ms: then one that was created at another time stays
-- Reply: OK.
-- Repeated: changes nothing more.
for at = 1, #ARGV, 2 do
  local id, created = ARGV[at], tonumber(ARGV[at + 1])
  for set = 1, #KEYS do
    if set ~= 2 then
      local score = redis.call('ZSCORE', KEYS[set], id)
      if score and (not created or tonumber(score) == created) then redis.call('ZREM', KEYS[set], id) end
    end
  end
  if not redis.call('ZSCORE', KEYS[1], id) then redis.call('HDEL', KEYS[2], id) end
end
return redis.status_reply('OK')
