#!lua flags=allow-oom
-- Writes holds down, all in one step, and says the turn: a number that rises with each change, which
-- a worker names once it keeps to it.
-- ARGV: how many lines for the log and these; of each hold its name, its record as it was read (''
-- for none), its record anew ('' to strike it off). Says 0 when one has changed since: look again.
local first = tonumber(ARGV[1]) + 2
for index = first, #ARGV, 3 do
  if (redis.call('HGET', HOLDS, ARGV[index]) or '') ~= ARGV[index + 1] then return 0 end
end
for index = first, #ARGV, 3 do
  if ARGV[index + 2] == '' then
    redis.call('HDEL', HOLDS, ARGV[index])
  else
    redis.call('HSET', HOLDS, ARGV[index], ARGV[index + 2])
  end
end
for index = 2, first - 1 do redis.call('RPUSH', BY_HAND, ARGV[index]) end
redis.call('LTRIM', BY_HAND, -10000, -1)
return redis.call('INCR', TURN)
