-- Creates a record, or says why not.
-- KEYS: meta, inbox, claims, the request's receipt[, the receipt and the past outcome of the run that is to be replaced]
-- ARGV: execution, run, request, origin, input, 1 to refuse finished instances too, the run that is to be replaced or '',
--       ms to keep the replaced run's receipt, ms to keep its outcome, then the names of a record's fields to be told who is there, or none
-- Reply: {'created', ms} | {'repeated', '<execution> <run>'} | {'refused'} | {'exists', the record's values, or nothing unless it is to be told}
--        | {'replace', run, request}: there is a finished run to replace; ask again with its keys, so that every key is declared. (The state is as
--        record.rs says.)
-- Repeated: the record answers 'repeated', and once it is replaced or deleted, its receipt.
local receipt = redis.call('GET', KEYS[4])
if receipt == 'refused' then return {'refused'} end
if receipt then return {'repeated', receipt} end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local old = redis.call('HMGET', KEYS[1], 'state', 'run', 'outcome')
if old[1] or old[2] then
  local updated, ended, marks = string.match(old[1] or '', '^%S+ %S+ %S+ %S+ %S+ (%S+) (%S+) (%S+)$')
  local run, request = string.match(old[2] or '', '^(%S+) (.+)$')
  local execution = string.match(old[1] or '', '^%S+')
  if execution and request == ARGV[3] then return {'repeated', execution .. ' ' .. run} end
  local is_over = updated and run and ended ~= '-' and marks == '-'
  if ARGV[6] == '1' or not is_over then return {'exists', ARGV[10] and redis.call('HMGET', KEYS[1], unpack(ARGV, 10)) or nil} end
  if run ~= ARGV[7] then return {'replace', run, request} end
  if old[3] then redis.call('SET', KEYS[6], old[3], 'PX', ARGV[9]) end
  redis.call('SET', KEYS[5], execution .. ' ' .. run, 'PX', ARGV[8])
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
  -- Later than everything that was noted of the replaced run, whatever the clock has done.
  now = math.max(now, tonumber(updated) + 1)
end
now = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'state', ARGV[1] .. ' 0 - Pending - ' .. now .. ' - start', 'run', ARGV[2] .. ' ' .. ARGV[3], 'origin', ARGV[4],
  'input', ARGV[5])
-- What waited for the instance has found it. (Not before the first write: a full Redis refuses a script at a write that needs memory, and only while
-- the script has written nothing.)
redis.call('PERSIST', KEYS[2])
return {'created', now}
