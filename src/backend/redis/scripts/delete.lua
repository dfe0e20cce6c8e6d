-- Deletes a finished, unmarked record and all that belongs to it but the receipt and the outcome.
-- KEYS: meta, inbox, claims, the receipt of the run's request, the run's past outcome
-- ARGV: execution, run, ms to keep the receipt, ms to keep the outcome
-- Reply: 'deleted' | 'active' | 'marked' | 'absent'.
-- (The state is as record.rs says.)
-- Repeated: answers 'absent'.
local meta = redis.call('HMGET', KEYS[1], 'state', 'run', 'outcome')
local execution, ended, marks = string.match(meta[1] or '', '^(%S+) %S+ %S+ %S+ %S+ %S+ (%S+) (%S+)$')
if execution ~= ARGV[1] or string.match(meta[2] or '', '^%S+') ~= ARGV[2] then return 'absent' end
if ended == '-' then return 'active' end
if marks ~= '-' then return 'marked' end
if meta[3] then redis.call('SET', KEYS[5], meta[3], 'PX', ARGV[4]) end
redis.call('SET', KEYS[4], execution .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
return 'deleted'
