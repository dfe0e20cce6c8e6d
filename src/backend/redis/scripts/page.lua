-- Members of sets after a position, in order of score, then bytes; of all of them at one moment, because instances move from one to another.
-- KEYS: sets
-- ARGV: first score; score and member to begin after, or '' and ''; most of each set
-- Reply: of each set {member, score, member, score ...}. Changes nothing.

-- Lua compares strings by the server's locale, the set by bytes.
local function is_after(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local pages = {}
for number, set in ipairs(KEYS) do
  local from = redis.call('ZCOUNT', set, '-inf', '(' .. ARGV[1])
  if ARGV[2] ~= '' then
    -- The member may be gone, and many may share its score: look for its place by halving.
    local low = redis.call('ZCOUNT', set, '-inf', '(' .. ARGV[2])
    local high = low + redis.call('ZCOUNT', set, ARGV[2], ARGV[2])
    while low < high do
      local middle = math.floor((low + high) / 2)
      if is_after(redis.call('ZRANGE', set, middle, middle)[1], ARGV[3]) then
        high = middle
      else
        low = middle + 1
      end
    end
    from = math.max(from, low)
  end
  pages[number] = redis.call('ZRANGE', set, from, from + ARGV[4] - 1, 'WITHSCORES')
end
return pages
