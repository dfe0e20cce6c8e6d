-- Looks whether a part of an instance is stored for ever although there is no record, and removes it.
-- KEYS: meta, the part
-- ARGV: 1 to remove it, else 0; ms to keep it before it goes, or 0
-- Reply: 1 if it was there so, else 0.
-- Repeated: answers 0 once it was removed.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
-- -1: it does not lapse. -2: it is not there.
if redis.call('PTTL', KEYS[2]) ~= -1 then return 0 end
if ARGV[1] == '1' then
  if ARGV[2] == '0' then redis.call('UNLINK', KEYS[2]) else redis.call('PEXPIRE', KEYS[2], ARGV[2]) end
end
return 1
