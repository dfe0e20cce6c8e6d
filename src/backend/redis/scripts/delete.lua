-- Deletes a finished, unmarked record and all that belongs to it but the receipt and the outcome.
-- KEYS: meta, history, inbox, claims, the receipt of the run's request, the run's past outcome
-- ARGV: execution, run, ms to keep the receipt, ms to keep the outcome
-- Reply: 'deleted' | 'active' | 'marked' | 'absent'.
-- Repeated: answers 'absent'.
local meta = redis.call('HMGET', KEYS[1], 'execution', 'run', 'ended', 'marks', 'outcome')
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] then return 'absent' end
if meta[3] == '' then return 'active' end
if meta[4] ~= '' then return 'marked' end
if meta[5] then redis.call('SET', KEYS[6], meta[5], 'PX', ARGV[4]) end
redis.call('PEXPIRE', KEYS[5], ARGV[3])
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return 'deleted'
