-- Removes a mark of the current execution.
-- KEYS: meta
-- ARGV: execution, mark, the version that the record must have or ''
-- Reply: the marks that are left, space-separated, or nil without a record.
-- Repeated: answers the same.
local meta = redis.call('HMGET', KEYS[1], 'execution', 'marks', 'version')
if not meta[1] then return false end
if meta[1] ~= ARGV[1] or (ARGV[3] ~= '' and meta[3] ~= ARGV[3]) then return meta[2] end
local list = {}
for mark in string.gmatch(meta[2], '%S+') do
  if mark ~= ARGV[2] then list[#list + 1] = mark end
end
local marks = table.concat(list, ' ')
if marks ~= meta[2] then redis.call('HSET', KEYS[1], 'marks', marks) end
return marks
