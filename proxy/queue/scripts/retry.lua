#!lua flags=allow-oom
-- Puts dead and deferred jobs at their queues' tails, each whole or not at all.
-- ARGV: of each job its id, its envelope as it was read, its envelope anew, what the log shall say.
-- Says for each: retried, queued (already), held, sending, changed (look again), absent.
local words = {}
for i = 1, #ARGV, 4 do
  local id, old, new = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local job = JOB .. id
  local found = redis.call('HMGET', job, 'origin', 'envelope', 'status')
  -- Of another program's jobs in the same Redis we know nothing: there is none such of ours.
  local ours = found[1] and string.sub(found[1], 1, #QUEUE_PREFIX) == QUEUE_PREFIX
  local origin, word = ours and found[1], 'absent'
  if origin and found[2] ~= old then
    word = 'changed'
  elseif origin then
    local dead = redis.call('ZREM', FAILED .. origin, id) == 1
    local late = redis.call('ZREM', SCHEDULED .. origin, id) == 1
    if dead or late then
      redis.call('ZREM', DEFERRED .. string.sub(origin, #QUEUE_PREFIX + 1), id)
      redis.call('HSET', job, 'status', 'queued')
      if dead then
        redis.call('HSET', job, 'envelope', new)
        redis.call('HDEL', job, 'died', 'exc_info', 'ended_at', 'late', 'leaving')
        redis.call('DEL', RESULTS .. id)
      end
      redis.call('SADD', QUEUES, QUEUE .. origin)
      redis.call('RPUSH', QUEUE .. origin, id)
      redis.call('PUBLISH', WAKE_CHANNEL, origin)
      redis.call('RPUSH', BY_HAND, ARGV[i + 3])
      word = 'retried'
    else
      local words_of = {started = 'sending', deferred = 'held'}
      word = words_of[found[3]] or 'queued'
    end
  end
  words[#words + 1] = word
end
redis.call('LTRIM', BY_HAND, -10000, -1)
return words
