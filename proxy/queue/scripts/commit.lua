-- Keeps a batch of messages, all of them or none, and says 1; or 0 when the fence has moved on and
-- the batch, come too late, was left alone.
-- KEYS: the committer's fence (hash: epoch, batch).
-- ARGV: epoch, batch number, now in RQ's form; then for each queue its name and how many messages,
-- and for each of those id, envelope, body.
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'batch')
if fence[1] ~= ARGV[1] or tonumber(ARGV[2]) <= tonumber(fence[2]) then
  return 0
end

-- An error in the middle would leave a part behind: what could fail on a foreign key comes first.
local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
local at = 4
while ARGV[at] do
  if not (is(QUEUES, 'set') and is(QUEUE .. ARGV[at], 'list')) then
    return redis.error_reply('WRONGTYPE a foreign key is in the way of queue ' .. ARGV[at])
  end
  at = at + 2 + 3 * tonumber(ARGV[at + 1])
end

local now = ARGV[3]
at = 4
while ARGV[at] do
  local queue, count = ARGV[at], tonumber(ARGV[at + 1])
  local first, last = at + 2, at + 1 + 3 * count
  local ids = {}
  for i = first, last, 3 do
    ids[#ids + 1] = ARGV[i]
  end
  redis.call('SADD', QUEUES, QUEUE .. queue)
  redis.call('RPUSH', QUEUE .. queue, unpack(ids))
  for i = first, last, 3 do
    local id = ARGV[i]
    -- One HSET, and no field that no stock tool needs: it all counts for every queued message.
    redis.call('HSET', JOB .. id,
      'data', '["' .. TASK .. '",null,["' .. id .. '"],{}]',
      'origin', queue,
      'status', 'queued',
      'created_at', now,
      'description', 'mail ' .. id,
      'timeout', 180,
      'failure_ttl', -1,
      'retries_left', 1000000000,
      'retry_intervals', '[30]',
      'envelope', ARGV[i + 1],
      'body', ARGV[i + 2])
  end
  redis.call('PUBLISH', WAKE_CHANNEL, queue)
  at = last + 1
end
redis.call('HSET', KEYS[1], 'batch', ARGV[2])
return 1
