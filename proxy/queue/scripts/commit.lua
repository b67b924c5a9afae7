-- Keeps a batch of messages, all of them or none, and says 1; the ids of those that had been kept
-- before and were left out, where there are any; or 0 when the fence has moved on and the batch,
-- come too late, was left alone.
-- KEYS: the committer's fence (hash: epoch, batch).
-- ARGV: epoch, batch number, now in RQ's form; then for each queue its name and how many messages,
-- and for each of those id, envelope, body: no octets where that lies at NEW .. id (what is left
-- there the caller deletes). Where "!" stands before the name, each has a fourth word, JSON: once
-- (an id under which it is kept only once); why, packed, whose (it is dead: see settle.lua).
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'batch')
if fence[1] ~= ARGV[1] or tonumber(ARGV[2]) <= tonumber(fence[2]) then
  return 0
end

local MOST_ONCE = 100000 -- ids remembered whose clients never said that they have heard us

-- An error in the middle would leave a part behind: what could fail on a foreign key comes first.
local function is(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == kind or found == 'none'
end
local at = 4
while ARGV[at] do
  local queue, words = ARGV[at], 3
  if string.sub(queue, 1, 1) == '!' then
    queue, words = string.sub(queue, 2), 4
    if not (is(ONCE, 'zset') and is(FAILED .. queue, 'zset') and is(TOLD, 'hash')) then
      return redis.error_reply('WRONGTYPE a foreign key is in the way of dead letters')
    end
  end
  if not (is(QUEUES, 'set') and is(QUEUE .. queue, 'list')) then
    return redis.error_reply('WRONGTYPE a foreign key is in the way of queue ' .. queue)
  end
  local first = at + 2
  at = first + words * tonumber(ARGV[at + 1])
  for i = first, at - 1, words do
    if ARGV[i + 2] == '' and redis.call('TYPE', NEW .. ARGV[i]).ok ~= 'hash' then
      return redis.error_reply('WRONGTYPE there is no body of mail ' .. ARGV[i])
    end
  end
end

local now, time, known = ARGV[3], nil, {}

local function fields(queue, id, envelope, status)
  -- None that no stock tool needs: it all counts for every queued message.
  return 'data', '["' .. TASK .. '",null,["' .. id .. '"],{}]',
    'origin', queue,
    'status', status,
    'created_at', now,
    'description', 'mail ' .. id,
    'timeout', 180,
    'failure_ttl', -1,
    'retries_left', 1000000000,
    'retry_intervals', '[30]',
    'envelope', envelope
end

local function write(queue, id, envelope, body, status)
  if body == '' then
    redis.call('RENAME', NEW .. id, JOB .. id)
    redis.call('HSET', JOB .. id, fields(queue, id, envelope, status))
  else
    redis.call('HSET', JOB .. id, 'body', body, fields(queue, id, envelope, status))
  end
end

local function bury(queue, id, envelope, body, dead)
  write(queue, id, envelope, body, 'failed')
  redis.call('HSET', JOB .. id, 'exc_info', dead.why, 'ended_at', now, 'died', now)
  redis.call('ZADD', FAILED .. queue, 'inf', id)
  if dead.whose then
    redis.pcall('ZADD', UNTOLD .. dead.whose, time, id)
    redis.call('HSETNX', TOLD, dead.whose, 0)
  end
  redis.pcall('XADD', RESULTS .. id, 'MAXLEN', 10, '*',
    'type', 2, 'worker_name', '', 'exc_string', dead.packed)
  redis.pcall('EXPIRE', RESULTS .. id, 31536000)
end

local function is_known(once)
  -- Part of a message that was kept whole, when other rules held: its id begins with that one's.
  local whole = string.match(once, '^(.-)%-')
  if whole and redis.call('ZSCORE', ONCE, whole) then
    return true
  end
  return redis.call('ZADD', ONCE, 'NX', time, once) == 0
end

local function keep_apart(queue, id, envelope, body, words)
  if not time then
    local clock = redis.call('TIME')
    time = clock[1] + clock[2] / 1000000
  end
  local apart = cjson.decode(words)
  if apart.once and is_known(apart.once) then
    known[#known + 1] = id
  elseif apart.why then
    redis.call('SADD', QUEUES, QUEUE .. queue)
    bury(queue, id, envelope, body, apart)
  else
    redis.call('SADD', QUEUES, QUEUE .. queue)
    redis.call('RPUSH', QUEUE .. queue, id)
    write(queue, id, envelope, body, 'queued')
    redis.call('PUBLISH', WAKE_CHANNEL, queue)
  end
end

at = 4
while ARGV[at] do
  local queue, count = ARGV[at], tonumber(ARGV[at + 1])
  local first = at + 2
  if string.sub(queue, 1, 1) == '!' then
    at = first + 4 * count
    for i = first, at - 1, 4 do
      keep_apart(string.sub(queue, 2), ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    end
  else
    at = first + 3 * count
    local ids = {}
    for i = first, at - 1, 3 do
      ids[#ids + 1] = ARGV[i]
    end
    redis.call('SADD', QUEUES, QUEUE .. queue)
    redis.call('RPUSH', QUEUE .. queue, unpack(ids))
    for i = first, at - 1, 3 do
      write(queue, ARGV[i], ARGV[i + 1], ARGV[i + 2], 'queued')
    end
    redis.call('PUBLISH', WAKE_CHANNEL, queue)
  end
end
if time then
  redis.call('ZREMRANGEBYRANK', ONCE, 0, -MOST_ONCE - 1)
end
redis.call('HSET', KEYS[1], 'batch', ARGV[2])
if #known > 0 then
  return known
end
return 1
