-- Stores an attempt's progress. (Fields and state: see claim.lua.)
-- KEYS: meta, claims
-- ARGV: execution, sequence number, 1 if the call has a claim or 0[, details]
-- Reply: 1, or 0 if nobody wants the attempt any more.
-- Repeated: stores the same again, with a new time.
local state = redis.call('HGET', KEYS[1], 'state')
local execution, ended = string.match(state or '', '^(%S+) %S+ %S+ %S+ %S+ %S+ (%S+) %S+$')
if execution ~= ARGV[1] or ended ~= '-' then return 0 end
local call = ARGV[2]
if redis.call('HEXISTS', KEYS[2], 'v:' .. call) == 1 then return 0 end
-- A claim goes with its call.
if ARGV[3] == '1' and redis.call('HEXISTS', KEYS[2], 't:' .. call) == 0 then return 0 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('HSET', KEYS[2], 'p:' .. call, string.format('%.0f', now))
if ARGV[4] then redis.call('HSET', KEYS[2], 'd:' .. call, ARGV[4]) end
return 1
