-- Decides a claim whose deadline may be due. (Fields and state: see claim.lua.)
-- KEYS: meta, claims
-- ARGV: execution, sequence number, ms after which to look again at a claim that nothing limits
-- Reply: {'not-started'} | {'timed-out'} | {'heartbeat-missed'} | {'closed'} | {'again', ms}.
-- Repeated: a verdict is kept, and given again.
local state = redis.call('HGET', KEYS[1], 'state')
local execution, ended = string.match(state or '', '^(%S+) %S+ %S+ %S+ %S+ %S+ (%S+) %S+$')
if execution ~= ARGV[1] or ended ~= '-' then return {'closed'} end
local call = ARGV[2]
local claim = redis.call('HMGET', KEYS[2], 't:' .. call, 'c:' .. call, 'v:' .. call, 'p:' .. call)
if not claim[1] then return {'closed'} end
if claim[3] then return {claim[3]} end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local start_by, timeout, heartbeat = string.match(claim[1], '^(%S+) (%S+) (%S+)$')
start_by, timeout, heartbeat = tonumber(start_by), tonumber(timeout), tonumber(heartbeat)

-- The limit that runs out first decides, however late somebody asks.
local due, verdict = nil, nil
local function limit(at, name)
  if not due or at < due then due, verdict = at, name end
end
local claimed = tonumber(claim[2] or '')
if claimed then
  if timeout then limit(claimed + timeout, 'timed-out') end
  if heartbeat then limit(math.max(claimed, tonumber(claim[4] or '0')) + heartbeat, 'heartbeat-missed') end
elseif start_by then
  limit(start_by, 'not-started')
end
if due and now >= due then
  redis.call('HSET', KEYS[2], 'v:' .. call, verdict)
  return {verdict}
end
-- Not claimed, and free to wait: its limits begin when it is claimed, so none can run out earlier than this.
if not due then due = now + math.min(timeout or ARGV[3], heartbeat or ARGV[3]) end
return {'again', string.format('%.0f', due)}
