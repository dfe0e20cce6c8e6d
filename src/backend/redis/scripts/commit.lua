-- Appends a turn, if the record is what the guard says. The hot path: no blob is decoded, and the work does not grow with the history, once that is too
-- long for the compact form of a hash.
-- KEYS: meta, inbox, claims
-- ARGV: 1 guard '<execution> <version> <commit>'; 2 what comes in its place; 3 '<status> <lane>'; 4 turn; 5 view; 6 marks cleared; 7 marks set;
--       8 '' if that is all, else '<1 if the status is terminal> <1 for another execution> <1 to drop the input> <inbox items taken> <put back>
--       <claims opened> <closed>'; then outcome, channel and what is said there after the run, each '' unless it is terminal; then the items, sequence number and
--       terms of each opened claim, sequence numbers of the closed ones. (The state and its parts are as record.rs says.)
-- Reply: 'applied <items left in the inbox> <updated>' | 'conflict': another guard holds | 'absent': no record.
-- Repeated: while the commit is the last one, it changes nothing and answers the same.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('ERR the record cannot be read: its field `state` is missing') end
  return 'absent'
end
local guard, updated, ended, marks = string.match(state, '^(%S+ %S+ %S+) %S+ %S+ (%S+) (%S+) (%S+)$')
if guard ~= ARGV[1] and guard ~= ARGV[2] then return 'conflict' end
-- Before anything is written: what is no list is refused by it.
local waiting = redis.call('LLEN', KEYS[2])
if guard == ARGV[2] then return 'applied ' .. waiting .. ' ' .. updated end

local ends, renews, drops, taken, kept, opened, closed
if ARGV[8] ~= '' then
  ends, renews, drops, taken, kept, opened, closed = string.match(ARGV[8], '^(%d) (%d) (%d) (%d+) (%d+) (%d+) (%d+)$')
end
if marks == ARGV[6] and renews ~= '1' then
  -- The usual case, without taking them apart: all that are there are cleared.
  marks = ARGV[7]
else
  local gone, set, list = {}, {}, {}
  for mark in string.gmatch(ARGV[6], '[^,-]+') do gone[mark] = true end
  if renews == '1' then gone['run'] = true end
  for mark in string.gmatch(marks, '[^,-]+') do
    if not gone[mark] then
      set[mark] = true
      list[#list + 1] = mark
    end
  end
  -- The turns of the old execution go: none of them may have effects outstanding.
  if renews == '1' and #list > 0 then return 'conflict' end
  for mark in string.gmatch(ARGV[7], '[^,-]+') do
    if not set[mark] then
      set[mark] = true
      list[#list + 1] = mark
    end
  end
  marks = #list > 0 and table.concat(list, ',') or '-'
end

local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
updated = string.format('%.0f', math.max(now, tonumber(updated) + 1))
if ends == '1' then ended = updated end
if renews == '1' then
  -- All turns at once, and not one after the other: there may be a hundred thousand. (A full Redis refuses no write that follows this one, because a
  -- script that has written is carried through.)
  local run, origin, input = unpack(redis.call('HMGET', KEYS[1], 'run', 'origin', 'input'))
  if not run or not origin then return redis.error_reply('ERR the record cannot be read: its field `run` or `origin` is missing') end
  redis.call('UNLINK', KEYS[1], KEYS[3])
  redis.call('HSET', KEYS[1], 'run', run, 'origin', origin)
  if input and drops ~= '1' then redis.call('HSET', KEYS[1], 'input', input) end
end
redis.call('HSET', KEYS[1], 'state', ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. updated .. ' ' .. ended .. ' ' .. marks, 'view', ARGV[5],
  string.match(ARGV[2], ' (%d+) '), ARGV[4])
if ARGV[8] == '' then return 'applied ' .. waiting .. ' ' .. updated end

if drops == '1' then redis.call('HDEL', KEYS[1], 'input') end
if taken ~= '0' then redis.call('LTRIM', KEYS[2], taken, -1) end
waiting = math.max(waiting - taken, 0) + kept
for i = 11 + kept, 12, -1 do redis.call('LPUSH', KEYS[2], ARGV[i]) end
local at = 12 + kept
for i = at, at + 2 * opened - 1, 2 do redis.call('HSET', KEYS[3], 't:' .. ARGV[i], ARGV[i + 1]) end
at = at + 2 * opened
for i = at, at + closed - 1 do
  local call = ARGV[i]
  redis.call('HDEL', KEYS[3], 't:' .. call, 'c:' .. call, 'v:' .. call, 'p:' .. call, 'd:' .. call)
end
if ends == '1' then
  if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'outcome', ARGV[9]) end
  redis.call('UNLINK', KEYS[3])
  local run = string.match(redis.call('HGET', KEYS[1], 'run') or '', '^%S+') or '-'
  -- A hint: a user who may not publish must not leave half a commit.
  redis.pcall('PUBLISH', ARGV[10], run .. ' ' .. ARGV[11])
end
return 'applied ' .. waiting .. ' ' .. updated
