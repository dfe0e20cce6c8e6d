-- Turns of an execution. (The state is as record.rs says.)
-- KEYS: meta
-- ARGV: execution, version of the first turn and of the last
-- Reply: the turns; none if the instance is in another execution. Changes nothing.
local state = redis.call('HGET', KEYS[1], 'state')
local execution, version = string.match(state or '', '^(%S+) (%d+)')
if execution ~= ARGV[1] then return {} end
local turns, last = {}, math.min(version, ARGV[3])
-- Lua passes no more than some thousand arguments.
for from = tonumber(ARGV[2]), last, 1000 do
  local names = {}
  for turn = from, math.min(from + 999, last) do names[#names + 1] = turn end
  for _, turn in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do turns[#turns + 1] = turn end
end
return turns
