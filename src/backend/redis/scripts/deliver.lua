-- Puts an item into the inbox, or says where else it belongs.
-- KEYS: meta, inbox
-- ARGV: item, most items or '', 1 to park it while code may run, ms to keep it without a record or ''
-- Reply: {'lane', lane} | {'kept'[, status]} | {'full'} | {'over', status} | {'absent'}.
-- (The state is as record.rs says.)
-- Repeated: an item that is the last one already is not added again.
local state = redis.call('HGET', KEYS[1], 'state')
local status, lane, ended
if state then
  status, lane, ended = string.match(state, '^%S+ %S+ %S+ (%S+) (%S+) %S+ (%S+) %S+$')
  if not status then return redis.error_reply('ERR the record cannot be read: its field `state` holds ' .. state) end
  if ended ~= '-' then return {'over', status} end
  if status == 'Running' and lane ~= '-' and ARGV[3] ~= '1' then return {'lane', lane} end
else
  if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('ERR the record cannot be read: its field `state` is missing') end
  if ARGV[4] == '' then return {'absent'} end
end
if redis.call('LINDEX', KEYS[2], -1) ~= ARGV[1] then
  if ARGV[2] ~= '' and redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[2]) then return {'full'} end
  redis.call('RPUSH', KEYS[2], ARGV[1])
end
if status then return {'kept', status} end
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return {'kept'}
