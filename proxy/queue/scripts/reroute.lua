#!lua flags=allow-oom
-- Puts dead jobs, rewritten by today's rules, at the tails of the queues that these choose, each
-- whole or not at all.
-- ARGV: of each job its id, its envelope as it was read, queue name, envelope and body anew, what the
-- log shall say.
-- Says for each: retried, not_dead, changed (look again), absent.
local words = {}
for i = 1, #ARGV, 6 do
  local id, old, queue, new, body = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local job = JOB .. id
  local found = redis.call('HMGET', job, 'origin', 'envelope')
  -- Of another program's jobs in the same Redis we know nothing: there is none such of ours.
  local ours = found[1] and string.sub(found[1], 1, #QUEUE_PREFIX) == QUEUE_PREFIX
  local origin, word = ours and found[1], 'absent'
  if origin and found[2] ~= old then
    word = 'changed'
  elseif origin and redis.call('ZREM', FAILED .. origin, id) == 0 then
    word = 'not_dead'
  elseif origin then
    redis.call('HSET', job, 'origin', queue, 'status', 'queued', 'envelope', new, 'body', body)
    redis.call('HDEL', job, 'died', 'exc_info', 'ended_at', 'late', 'leaving')
    redis.call('DEL', RESULTS .. id)
    redis.call('SADD', QUEUES, QUEUE .. queue)
    redis.call('RPUSH', QUEUE .. queue, id)
    redis.call('PUBLISH', WAKE_CHANNEL, queue)
    redis.call('RPUSH', BY_HAND, ARGV[i + 5])
    word = 'retried'
  end
  words[#words + 1] = word
end
redis.call('LTRIM', BY_HAND, -10000, -1)
return words
