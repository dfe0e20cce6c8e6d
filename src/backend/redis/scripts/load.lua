-- Record, turns and inbox as of one moment.
-- KEYS: meta, history, inbox
-- ARGV: first and last turn (counted from 0), inbox items
-- Reply: {meta, turns, inbox}, or nil without a record. Changes nothing.
local meta = redis.call('HGETALL', KEYS[1])
if #meta == 0 then return false end
local inbox = {}
if ARGV[3] ~= '0' then inbox = redis.call('LRANGE', KEYS[3], 0, ARGV[3] - 1) end
return {meta, redis.call('LRANGE', KEYS[2], ARGV[1], ARGV[2]), inbox}
