-- Counts a turn that is about to run.
-- KEYS: meta
-- ARGV: execution
-- Reply: tries since the last commit; 0 if the execution is not the current one.
-- Repeated: counts again. One try too many brings the crash limit nearer, and the next commit resets it.
if redis.call('HGET', KEYS[1], 'execution') ~= ARGV[1] then return 0 end
return redis.call('HINCRBY', KEYS[1], 'tries', 1)
