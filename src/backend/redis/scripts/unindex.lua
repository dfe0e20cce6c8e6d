-- Forgets instances.
-- KEYS: as in index.lua
-- ARGV: of each instance: ID, and '' or when it was created in ms: then one that was created at another time stays
-- Reply: OK.
-- Repeated: changes nothing more.
for at = 1, #ARGV, 2 do
  local id, created = ARGV[at], tonumber(ARGV[at + 1])
  local stays = false
  for set = 2, #KEYS do
    local score = redis.call('ZSCORE', KEYS[set], id)
    if score and created and tonumber(score) ~= created then
      stays = true
    elseif score then
      redis.call('ZREM', KEYS[set], id)
    end
  end
  if not stays then redis.call('HDEL', KEYS[1], id) end
end
return redis.status_reply('OK')
