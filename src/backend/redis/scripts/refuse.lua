-- Leaves a receipt that refuses a request, unless the request has created an execution.
-- KEYS: the request's receipt, meta
-- ARGV: ms to keep it, the request
-- Reply: 1 if the request is refused from now on, else 0.
-- Repeated: answers the same, and keeps the receipt for longer.
local receipt = redis.call('GET', KEYS[1])
if receipt and receipt ~= 'refused' then return 0 end
local run = redis.call('HGET', KEYS[2], 'run')
if run and string.match(run, '^%S+ (.+)$') == ARGV[2] then return 0 end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], 'refused', 'PX', ARGV[1]) end
return 1
