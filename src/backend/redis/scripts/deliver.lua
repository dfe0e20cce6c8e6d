-- Puts an item into the inbox, or says where else it belongs.
-- KEYS: meta, inbox
-- ARGV: item, most items or '', 1 to park it while code may run, ms to keep it without a record or ''
-- Reply: {'lane', lane} | {'kept'[, status]} | {'full'} | {'over', status} | {'absent'}.
-- Repeated: an item that is the last one already is not added again.
local meta = redis.call('HMGET', KEYS[1], 'status', 'lane', 'ended')
if not meta[1] then
  if ARGV[4] == '' then return {'absent'} end
elseif meta[3] ~= '' then
  return {'over', meta[1]}
elseif meta[1] == 'Running' and meta[2] ~= '' and ARGV[3] ~= '1' then
  return {'lane', meta[2]}
end
if redis.call('LINDEX', KEYS[2], -1) ~= ARGV[1] then
  if ARGV[2] ~= '' and redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[2]) then return {'full'} end
  redis.call('RPUSH', KEYS[2], ARGV[1])
end
if meta[1] then return {'kept', meta[1]} end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return {'kept'}
