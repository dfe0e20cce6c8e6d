-- Looks whether a part of an instance is stored for ever although there is no record, and removes it.
-- KEYS: meta, the part
-- ARGV: 1 to remove it, else 0
-- Reply: 1 if it was there so, else 0.
-- Repeated: answers 0 once it was removed.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
-- -1: it does not lapse. -2: it is not there.
if redis.call('PTTL', KEYS[2]) ~= -1 then return 0 end
if ARGV[1] == '1' then redis.call('UNLINK', KEYS[2]) end
return 1
