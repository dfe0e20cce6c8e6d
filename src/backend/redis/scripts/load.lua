-- Record, turns and inbox as of one moment.
-- KEYS: meta, inbox
-- ARGV: version of the first turn and of the last, inbox items, then the names of a record's fields
-- Reply: {the record's values, turns, inbox}, or nil without a record. (The state is as record.rs says.) Changes nothing.
local state = redis.call('HGET', KEYS[1], 'state')
if not state and redis.call('EXISTS', KEYS[1]) == 0 then return false end
local version = tonumber(string.match(state or '', '^%S+ (%d+)') or 0)
local turns, inbox = {}, {}
for turn = tonumber(ARGV[1]), math.min(version, ARGV[2]) do turns[#turns + 1] = turn end
if #turns > 0 then turns = redis.call('HMGET', KEYS[1], unpack(turns)) end
if ARGV[3] ~= '0' then inbox = redis.call('LRANGE', KEYS[2], 0, ARGV[3] - 1) end
return {redis.call('HMGET', KEYS[1], unpack(ARGV, 4)), turns, inbox}
