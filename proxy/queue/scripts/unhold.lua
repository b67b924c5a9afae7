#!lua flags=allow-oom
-- with: holding
-- Puts held mail that no hold takes any more back to the head of its queue, the newest first, so
-- that after all bites the oldest stands before all others. What is elsewhere by now is struck off.
-- ARGV: queue name, the id down to which it was looked before ('' for none), how many to look at.
-- Says how many of them came back, and the id of the last that was looked at, '' when it was all.
local queue, above, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local stream, key = string.sub(queue, #QUEUE_PREFIX + 1), HELD .. queue
local holds = standing_holds()
local back, last = 0, ''
local from = above == '' and '+' or '(' .. above
local ids = redis.call('ZRANGE', key, from, '-', 'BYLEX', 'REV', 'LIMIT', 0, most)
for _, id in ipairs(ids) do
  local job = JOB .. id
  local found = redis.call('HMGET', job, 'status', 'envelope')
  if found[1] ~= 'deferred' then
    redis.call('ZREM', key, id)
  elseif not (holds and covering(holds, stream, found[2] or '')) then
    redis.call('ZREM', key, id)
    redis.call('HSET', job, 'status', 'queued')
    redis.call('SADD', QUEUES, QUEUE .. queue)
    redis.call('LPUSH', QUEUE .. queue, id)
    back = back + 1
  end
end
if #ids == most then last = ids[most] end
if back > 0 then redis.call('PUBLISH', WAKE_CHANNEL, queue) end
return {back, last}
