-- ARGV: stream and id of jobs that have stood in a stock worker's intermediate list for long, ...
-- Ends claims without an owner: of a worker no longer known, or of a stock worker whose time is
-- up. Returns {jobs that came back, {stream, id, ... now standing in an intermediate list}, {workers
-- on our queues that are not of us}, {stream, how many messages wait where no worker serves, ...}}.
local count, time = 0, now()
for index = 1, #ARGV, 2 do
  local stream, id = ARGV[index], ARGV[index + 1]
  if call('LREM', QUEUE .. stream .. ':intermediate', 1, id) == 1 then
    local job = call('HMGET', JOB .. id, 'status', 'claim')
    if job[1] and nowhere_else(stream, id, job[1], job[2]) then count = count + to_head(stream, {id}) end
  end
end

local us = {}
for _, incarnation in ipairs(call('HKEYS', WORKERS)) do
  us[RQ_WORKER .. (call('HGET', WORKER .. incarnation, 'name') or '')] = true
end

local standing, foreign, unserved = {}, {}, {}
for _, stream in ipairs(all_streams()) do
  local ids = {}
  local claims = call('ZRANGE', STARTED .. stream, 0, -1, 'WITHSCORES')
  for index = 1, #claims, 2 do
    local id, execution = string.match(claims[index], '^([^:]+):(.+)$')
    local ours = id and owner(execution)
    local over
    if claims[index + 1] == 'inf' then
      over = not ours or call('HEXISTS', WORKERS, ours) == 0
    else
      over = tonumber(claims[index + 1]) < time
    end
    if over then
      call('ZREM', STARTED .. stream, claims[index])
      id = id or claims[index]
      local job = call('HMGET', JOB .. id, 'status', 'claim')
      if job[1] and nowhere_else(stream, id, job[1], job[2]) then ids[#ids + 1] = id end
    end
  end
  count = count + to_head(stream, ids)
  for _, id in ipairs(call('LRANGE', QUEUE .. stream .. ':intermediate', 0, 999)) do
    standing[#standing + 1] = stream
    standing[#standing + 1] = id
  end
  -- What a stock tool woke or deleted is no longer deferred, and must not age the queue for ever.
  for _, id in ipairs(call('ZRANGE', DEFERRED .. stream, 0, 99)) do
    if not call('ZSCORE', SCHEDULED .. stream, id) then call('ZREM', DEFERRED .. stream, id) end
  end
  local served = false
  for _, key in ipairs(call('SMEMBERS', RQ_WORKERS .. ':' .. QUEUE_NAME .. stream)) do
    served = served or us[key]
    -- One of us that was struck off, or is out of a backup, still has the field that says so.
    local stock = not us[key] and call('HEXISTS', key, OURS) == 0
    if stock and call('EXISTS', key) == 1 and call('HEXISTS', key, 'death') == 0 then
      foreign[#foreign + 1] = string.sub(key, #RQ_WORKER + 1)
    end
  end
  local waiting = call('LLEN', QUEUE .. stream) + call('ZCARD', SCHEDULED .. stream)
  if not served and waiting > 0 then
    unserved[#unserved + 1] = stream
    unserved[#unserved + 1] = waiting
  end
end
return {count, standing, foreign, unserved}
