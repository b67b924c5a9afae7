#!lua flags=allow-oom
-- Gives the fence a new epoch, so that no batch sent before can be applied any more, and says the
-- number of the last one that was. Come late it refuses what bears an epoch that is in use: whoever
-- sent that raises the fence again.
-- KEYS: the committer's fence. ARGV: an epoch that nobody had, seconds that the fence stays.
redis.call('HSETNX', KEYS[1], 'batch', 0)
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return tonumber(redis.call('HGET', KEYS[1], 'batch'))
