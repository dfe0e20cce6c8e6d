-- Takes the open claim of a call. Fields of the claims, each with the call's sequence number: `t` terms (start by, timeout, heartbeat: ms or '-'),
-- `c` claimed at, `v` verdict, `p` progress at, `d` its details. (The state is as record.rs says.)
-- KEYS: meta, claims
-- ARGV: execution, sequence number
-- Reply: 1 if the body may run, else 0.
-- Repeated: grants it again, and its time starts anew.
local state = redis.call('HGET', KEYS[1], 'state')
local execution, ended = string.match(state or '', '^(%S+) %S+ %S+ %S+ %S+ %S+ (%S+) %S+$')
if execution ~= ARGV[1] or ended ~= '-' then return 0 end
local call = ARGV[2]
local claim = redis.call('HMGET', KEYS[2], 't:' .. call, 'c:' .. call, 'v:' .. call)
if not claim[1] or claim[3] then return 0 end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local start_by = tonumber((string.match(claim[1], '^(%S+)')))
if not claim[2] and start_by and now >= start_by then
  -- Its deadline is due, though nobody has asked yet.
  redis.call('HSET', KEYS[2], 'v:' .. call, 'not-started')
  return 0
end
redis.call('HSET', KEYS[2], 'c:' .. call, string.format('%.0f', now))
return 1
