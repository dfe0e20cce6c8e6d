-- Removes a mark of the current execution. (The state is as record.rs says.)
-- KEYS: meta
-- ARGV: execution, mark, the version that the record must have or ''
-- Reply: the marks that are left, as the state has them, or nil without a record.
-- Repeated: answers the same.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then
  if redis.call('EXISTS', KEYS[1]) == 1 then return redis.error_reply('ERR the record cannot be read: its field `state` is missing') end
  return false
end
local rest, execution, version, marks = string.match(state, '^((%S+) (%S+) %S+ %S+ %S+ %S+ %S+) (%S+)$')
if not execution then return redis.error_reply('ERR the record cannot be read: its field `state` holds ' .. state) end
if execution ~= ARGV[1] or (ARGV[3] ~= '' and version ~= ARGV[3]) then return marks end
local list = {}
for mark in string.gmatch(marks, '[^,-]+') do
  if mark ~= ARGV[2] then list[#list + 1] = mark end
end
local left = #list > 0 and table.concat(list, ',') or '-'
if left ~= marks then redis.call('HSET', KEYS[1], 'state', rest .. ' ' .. left) end
return left
