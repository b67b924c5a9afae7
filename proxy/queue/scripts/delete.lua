#!lua flags=allow-oom
-- Deletes jobs that wait or are dead; one that is being sent stays.
-- ARGV: of each job its id, its recipients as they were read (for the count of what was discarded),
-- and what the log shall say. Says for each: deleted, sending, absent.
local words = {}
for i = 1, #ARGV, 3 do
  local id, recipients = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', JOB .. id, 'origin', 'status')
  -- Of another program's jobs in the same Redis we know nothing: there is none such of ours.
  local ours = found[1] and string.sub(found[1], 1, #QUEUE_PREFIX) == QUEUE_PREFIX
  local origin, word = ours and found[1], 'absent'
  if origin then
    local apart = redis.call('ZREM', FAILED .. origin, id) + redis.call('ZREM', SCHEDULED .. origin, id)
      + redis.call('ZREM', HELD .. origin, id)
    if apart > 0 or found[2] ~= 'started' then
      if apart == 0 then
        redis.call('LREM', QUEUE .. origin, 1, id)
      end
      local stream = string.sub(origin, #QUEUE_PREFIX + 1)
      redis.call('ZREM', DEFERRED .. stream, id)
      redis.call('DEL', JOB .. id, RESULTS .. id)
      redis.call('HINCRBY', DISCARDED, stream, recipients)
      redis.call('RPUSH', BY_HAND, ARGV[i + 2])
      word = 'deleted'
    else
      word = 'sending'
    end
  end
  words[#words + 1] = word
end
redis.call('LTRIM', BY_HAND, -10000, -1)
return words
