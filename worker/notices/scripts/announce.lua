#!lua flags=allow-oom
-- Notes that dead letters are to leave, so that their owners hear of it before they do.
-- ARGV: of each letter its id, when it died as it was read, its owner ('' for nobody's own).
for i = 1, #ARGV, 3 do
  local id, died, owner = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = redis.call('HMGET', JOB .. id, 'died', 'leaving')
  if found[1] == died and not found[2] then
    redis.call('HSET', JOB .. id, 'leaving', 1)
    redis.call('ZADD', UNTOLD .. owner, redis.call('TIME')[1], id)
    redis.call('HSETNX', TOLD, owner, 0)
  end
end
