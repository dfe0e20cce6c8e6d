-- Creates a record, or says why not.
-- KEYS: meta, history, inbox, claims, the request's receipt[, the receipt and the past outcome of the run that is to be replaced]
-- ARGV: execution, run, request, origin, input, view, 1 to refuse finished instances too, the run that is to be replaced or '',
--       ms to keep the replaced run's receipt, ms to keep its outcome
-- Reply: {'created', ms} | {'repeated', '<execution> <run>'} | {'refused'} | {'exists', meta} | {'replace', run, request}: there is a finished run to
--        replace; ask again with its keys, so that every key is declared.
-- Repeated: the receipt answers 'repeated'.
local receipt = redis.call('GET', KEYS[5])
if receipt == 'refused' then return {'refused'} end
if receipt then return {'repeated', receipt} end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local old = redis.call('HMGET', KEYS[1], 'run', 'request', 'ended', 'marks', 'updated', 'outcome')
if old[1] then
  if ARGV[7] == '1' or old[3] == '' or old[4] ~= '' then return {'exists', redis.call('HGETALL', KEYS[1])} end
  if old[1] ~= ARGV[8] then return {'replace', old[1], old[2]} end
  if old[6] then redis.call('SET', KEYS[7], old[6], 'PX', ARGV[10]) end
  redis.call('PEXPIRE', KEYS[6], ARGV[9])
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
  -- Later than everything that was noted of the replaced run, whatever the clock has done.
  now = math.max(now, tonumber(old[5]) + 1)
end
now = string.format('%.0f', now)
redis.call('HSET', KEYS[1], 'execution', ARGV[1], 'run', ARGV[2], 'request', ARGV[3], 'origin', ARGV[4], 'input', ARGV[5], 'view', ARGV[6],
  'version', '0', 'commit', '', 'status', 'Pending', 'lane', '', 'marks', 'start', 'updated', now, 'ended', '')
redis.call('SET', KEYS[5], ARGV[1] .. ' ' .. ARGV[2])
-- What waited for the instance has found it. (Not before the first write: a full Redis refuses a script at a write that needs memory, and only while
-- the script has written nothing.)
redis.call('PERSIST', KEYS[3])
return {'created', now}
