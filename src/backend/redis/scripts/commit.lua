-- Appends a turn, if the record is what the guard says. The hot path: no blob is decoded, and the work does not grow with the history.
-- KEYS: meta, history, inbox, claims
-- ARGV: 1-3 guard: execution, version, commit ('' for none); 4 commit; 5 next execution or ''; 6 version of the turn; 7 turn; 8 status;
--       9 1 if that is terminal; 10 lane or ''; 11 view; 12 outcome or ''; 13 1 to drop the input; 14 marks cleared; 15 marks set (space-separated);
--       16 inbox items taken; 17 channel and 18 instance ID, if terminal; 19-21 how many inbox items are put back, claims opened, claims closed; then the
--       items, sequence number and terms of each opened claim, sequence numbers of the closed ones
-- Reply: {'applied', items left in the inbox, updated} | {'conflict'}: another guard holds | {'absent'}: no record.
-- Repeated: while the commit is the last one, it changes nothing and answers the same.
local meta = redis.call('HMGET', KEYS[1], 'execution', 'version', 'commit', 'marks', 'updated')
if not meta[1] then return {'absent'} end
if meta[3] == ARGV[4] then return {'applied', redis.call('LLEN', KEYS[3]), meta[5]} end
if meta[1] ~= ARGV[1] or meta[2] ~= ARGV[2] or meta[3] ~= ARGV[3] then return {'conflict'} end

local marks = meta[4]
if marks == ARGV[14] then
  -- The usual case, without taking them apart: all that are there are cleared.
  marks = ARGV[15]
elseif ARGV[14] ~= '' or ARGV[15] ~= '' or ARGV[5] ~= '' then
  local gone, set, list = {}, {}, {}
  for mark in string.gmatch(ARGV[14], '%S+') do gone[mark] = true end
  if ARGV[5] ~= '' then gone['run'] = true end
  for mark in string.gmatch(marks, '%S+') do
    if not gone[mark] then
      set[mark] = true
      list[#list + 1] = mark
    end
  end
  -- The turns of the old execution go: none of them may have effects outstanding.
  if ARGV[5] ~= '' and #list > 0 then return {'conflict'} end
  for mark in string.gmatch(ARGV[15], '%S+') do
    if not set[mark] then
      set[mark] = true
      list[#list + 1] = mark
    end
  end
  marks = table.concat(list, ' ')
end

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local updated = string.format('%.0f', math.max(now, tonumber(meta[5]) + 1))
if ARGV[5] ~= '' then redis.call('UNLINK', KEYS[2], KEYS[4]) end
redis.call('RPUSH', KEYS[2], ARGV[7])
redis.call('HSET', KEYS[1], 'version', ARGV[6], 'commit', ARGV[4], 'status', ARGV[8], 'lane', ARGV[10], 'view', ARGV[11], 'marks', marks,
  'updated', updated)
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'execution', ARGV[5]) end
if ARGV[9] == '1' then redis.call('HSET', KEYS[1], 'ended', updated) end
if ARGV[12] ~= '' then redis.call('HSET', KEYS[1], 'outcome', ARGV[12]) end
if ARGV[13] == '1' then redis.call('HDEL', KEYS[1], 'input') end

local kept, opened, closed = tonumber(ARGV[19]), tonumber(ARGV[20]), tonumber(ARGV[21])
if ARGV[16] ~= '0' then redis.call('LTRIM', KEYS[3], ARGV[16], -1) end
for i = 21 + kept, 22, -1 do redis.call('LPUSH', KEYS[3], ARGV[i]) end
local at = 22 + kept
for i = at, at + 2 * opened - 1, 2 do redis.call('HSET', KEYS[4], 't:' .. ARGV[i], ARGV[i + 1]) end
at = at + 2 * opened
for i = at, at + closed - 1 do
  local call = ARGV[i]
  redis.call('HDEL', KEYS[4], 't:' .. call, 'c:' .. call, 'v:' .. call, 'p:' .. call, 'd:' .. call)
end
if ARGV[9] == '1' then
  redis.call('UNLINK', KEYS[4])
  -- A hint: a user who may not publish must not leave half a commit.
  redis.pcall('PUBLISH', ARGV[17], ARGV[18])
end
return {'applied', redis.call('LLEN', KEYS[3]), updated}
