-- Takes messages back that were kept after their clients had been told that they were not. Says
-- the ids of those that a worker has taken meanwhile: they go out.
-- ARGV: queue name and id of each.
local taken = {}
for i = 1, #ARGV, 2 do
  local queue, id = ARGV[i], ARGV[i + 1]
  if redis.call('HGET', JOB .. id, 'status') == 'queued'
      and redis.call('LREM', QUEUE .. queue, -1, id) == 1 then
    redis.call('DEL', JOB .. id)
  elseif redis.call('EXISTS', JOB .. id) == 1 then
    taken[#taken + 1] = id
  end
end
return taken
