-- Turns of an execution. (The state is as record.rs says.)
-- KEYS: meta, history
-- ARGV: execution, first and last turn (counted from 0)
-- Reply: the turns; none if the instance is in another execution. Changes nothing.
local state = redis.call('HGET', KEYS[1], 'state')
if not state or string.match(state, '^%S+') ~= ARGV[1] then return {} end
return redis.call('LRANGE', KEYS[2], ARGV[2], ARGV[3])
