#!lua flags=allow-oom
-- Queues a notice and notes what it tells, in one step: nobody hears of a thing twice, or never.
-- ARGV: owner, when he was last written to as it was read ('' for never), seconds that must lie
-- between, now in RQ's form, queue name, id, envelope, body, of how many deaths it tells, for each
-- of those whose it is ('' for nobody's own) and its id; then the ids of late messages.
-- Says: told, another (somebody else wrote meanwhile), early.
local owner, read, least, date = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local queue, id, envelope, body = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local last = redis.call('HGET', TOLD, owner) or ''
if last ~= read then return 'another' end
local time = redis.call('TIME')
local since = tonumber(time[1]) - (tonumber(last) or 0)
-- What lies in the future was written by a clock that was set back since.
if since >= 0 and since < least then return 'early' end

redis.call('HSET', TOLD, owner, time[1])
redis.call('SADD', QUEUES, QUEUE .. queue)
redis.call('RPUSH', QUEUE .. queue, id)
redis.call('HSET', JOB .. id,
  'data', '["' .. TASK .. '",null,["' .. id .. '"],{}]',
  'origin', queue,
  'status', 'queued',
  'created_at', date,
  'description', 'mail ' .. id,
  'timeout', 180,
  'failure_ttl', -1,
  'retries_left', 1000000000,
  'retry_intervals', '[30]',
  'envelope', envelope,
  'body', body)
redis.call('PUBLISH', WAKE_CHANNEL, queue)
local at = 10 + 2 * tonumber(ARGV[9])
for i = 10, at - 1, 2 do
  redis.call('ZREM', UNTOLD .. ARGV[i], ARGV[i + 1])
end
for i = at, #ARGV do
  if redis.call('EXISTS', JOB .. ARGV[i]) == 1 then
    redis.call('HSET', JOB .. ARGV[i], 'late', 1)
  end
end
return 'told'
