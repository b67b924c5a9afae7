#!lua flags=allow-oom
-- Takes dead letters away that are on disk now, unless they were put back meanwhile.
-- ARGV: of each letter its id, and when it died as it was read. Says for each 1 or 0.
local words = {}
for i = 1, #ARGV, 2 do
  local id, died = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', JOB .. id, 'origin', 'died')
  if found[1] and (found[2] or '') == died and redis.call('ZREM', FAILED .. found[1], id) == 1 then
    redis.call('DEL', JOB .. id, RESULTS .. id)
    words[#words + 1] = 1
  else
    words[#words + 1] = 0
  end
end
return words
