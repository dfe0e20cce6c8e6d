-- Turns of an execution.
-- KEYS: meta, history
-- ARGV: execution, first and last turn (counted from 0)
-- Reply: the turns; none if the instance is in another execution. Changes nothing.
if redis.call('HGET', KEYS[1], 'execution') ~= ARGV[1] then return {} end
return redis.call('LRANGE', KEYS[2], ARGV[2], ARGV[3])
