#!lua flags=allow-oom
-- Takes messages back that were kept after their clients had been told that they were not. Says
-- the others' ids, each with what it is: taken (a worker has it: it goes out), or gone (sent or
-- deleted meanwhile, or never there).
-- ARGV: queue name and id of each.
local others = {}
for i = 1, #ARGV, 2 do
  local queue, id = ARGV[i], ARGV[i + 1]
  local status = redis.call('HGET', JOB .. id, 'status')
  if (status == 'queued' and redis.call('LREM', QUEUE .. queue, -1, id) == 1)
      or (status == 'deferred' and redis.call('ZREM', HELD .. queue, id) == 1) then
    redis.call('DEL', JOB .. id)
  else
    others[#others + 1] = id
    others[#others + 1] = redis.call('EXISTS', JOB .. id) == 1 and 'taken' or 'gone'
  end
end
return others
