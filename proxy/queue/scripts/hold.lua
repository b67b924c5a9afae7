#!lua flags=allow-oom
-- Writes holds down, all in one step, and says the turn: a number that rises with each change, which
-- a worker names once it keeps to it.
-- ARGV: of each hold its name, its record as it was read ('' for none), its record anew ('' to
-- strike it off). Says 0 when one of them has changed since: look again.
for index = 1, #ARGV, 3 do
  if (redis.call('HGET', HOLDS, ARGV[index]) or '') ~= ARGV[index + 1] then return 0 end
end
for index = 1, #ARGV, 3 do
  if ARGV[index + 2] == '' then
    redis.call('HDEL', HOLDS, ARGV[index])
  else
    redis.call('HSET', HOLDS, ARGV[index], ARGV[index + 2])
  end
end
return redis.call('INCR', TURN)
