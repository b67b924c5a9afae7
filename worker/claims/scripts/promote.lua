-- ARGV: date, seconds ahead at which a time can only be a clock's fault, jobs at most, stream, ...
-- Puts what is due at its queue's tail; returns how many.
local date, absurd, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time, count = now(), 0

local function promote(stream, ids)
  local queued = 0
  for _, id in ipairs(ids) do
    local job = call('HMGET', JOB .. id, 'status', 'claim')
    call('ZREM', SCHEDULED .. stream, id)
    call('ZREM', DEFERRED .. stream, id)
    if job[1] and nowhere_else(stream, id, job[1], job[2]) then
      call('HSET', JOB .. id, 'status', 'queued', 'enqueued_at', date)
      call('RPUSH', QUEUE .. stream, id)
      queued = queued + 1
    end
  end
  if queued > 0 then
    call('SADD', QUEUES, QUEUE .. stream)
    call('PUBLISH', WAKE, QUEUE_NAME .. stream)
    count = count + queued
  end
end

for index = 4, #ARGV do
  local key = SCHEDULED .. ARGV[index]
  promote(ARGV[index], call('ZRANGEBYSCORE', key, '-inf', time, 'LIMIT', 0, most))
  promote(ARGV[index], call('ZRANGEBYSCORE', key, time + absurd, '+inf', 'LIMIT', 0, most))
end
return count
