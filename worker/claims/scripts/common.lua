-- Words shared by all scripts. The names in capitals above are the keys' beginnings.
--
-- A claim is a member "<job id>:<execution>" of rq:wip:<queue> with score +inf (a stock tool ends
-- what has another score); an execution is "<incarnation>-<number of the claim call>", and stands
-- in the job's field `claim` too, which no stock tool writes over.
-- franker:workers: incarnation -> counter that moves while it lives. franker:processes: where it
-- runs. franker:grants: connections it may hold. franker:worker:<incarnation>: name, routes, the turn
-- of the holds that it keeps to, and the fences: number of the last claim and of the last flush with
-- its results.

local call = redis.call
local RQ_WORKERS = 'rq:workers'
local RQ_WORKER = 'rq:worker:'

local function now()
  local time = call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

local function owner(execution)
  return string.match(execution, '^(.+)%-%d+$')
end

-- Whether one of us holds the job. Its status does not tell: a stock scheduler that was late
-- writes "queued" over a job that was promoted, and claimed, by us meanwhile.
local function claimed(stream, id, claim)
  return claim and call('ZSCORE', STARTED .. stream, id .. ':' .. claim)
end

-- Whether a job named in a list is nowhere else: its status says where it should be, and it is
-- not there. What RQ left half done is found this way, and a second entry of one job dropped.
local function nowhere_else(stream, id, status, claim)
  if claimed(stream, id, claim) then
    return false
  elseif status == 'started' then
    return #call('ZSCAN', STARTED .. stream, 0, 'MATCH', id .. ':*', 'COUNT', 1000000)[2] == 0
  elseif status == 'scheduled' then
    return not call('ZSCORE', SCHEDULED .. stream, id)
  elseif status == 'deferred' then
    return not call('ZSCORE', HELD .. stream, id)
  elseif status == 'failed' or status == 'stopped' then
    return not call('ZSCORE', FAILED .. stream, id)
  elseif status == 'canceled' then
    return not call('ZSCORE', 'rq:canceled:' .. QUEUE_NAME .. stream, id)
  elseif status == 'queued' then
    return not call('LPOS', QUEUE .. stream, id)
  end
  return true
end

-- What is read of a job to relay it: envelope, body, dot, died, status, claim; and the octets of its
-- body, which stand in place of a large one: whatever enters Lua is copied, and its every octet hashed.
local LARGE = 65536 -- below it a second question costs as much
local function to_relay(id)
  local job = JOB .. id
  local ours, size = pcall(call, 'HSTRLEN', job, 'body')
  if not ours then return {}, 0 end -- a foreign key: no mail of ours, and nobody else's has to wait for it
  local body = size < LARGE and 'body' or ''
  local fields = call('HMGET', job, 'envelope', body, 'dot', 'died', 'status', 'claim')
  if size >= LARGE then fields[2] = size end
  return fields, size
end

-- Puts jobs back to the head of their queue, the oldest first; returns how many.
local function to_head(stream, ids)
  table.sort(ids, function(a, b) return a > b end)
  local count = 0
  for _, id in ipairs(ids) do
    if call('EXISTS', JOB .. id) == 1 then
      call('HSET', JOB .. id, 'status', 'queued')
      call('HDEL', JOB .. id, 'worker_name', 'started_at', 'claim')
      call('LPUSH', QUEUE .. stream, id)
      count = count + 1
    end
  end
  if count > 0 then call('PUBLISH', WAKE, QUEUE_NAME .. stream) end
  return count
end

-- The streams whose queues RQ knows.
local function all_streams()
  local streams = {}
  for _, name in ipairs(call('SMEMBERS', QUEUES)) do
    local stream = string.match(name, '^rq:queue:' .. string.gsub(QUEUE_NAME, '%-', '%%-') .. '(.+)$')
    if stream then streams[#streams + 1] = stream end
  end
  return streams
end

-- Adds a job, as `to_relay` read it, to what a claim answers.
local function add(reply, stream, id, fields)
  local at = #reply
  reply[at + 1], reply[at + 2] = stream, id
  reply[at + 3], reply[at + 4] = fields[1] or '', fields[2] or ''
  reply[at + 5], reply[at + 6] = fields[3] or '', fields[4] or ''
end

-- What a claim answers that has been carried out before: all that it claimed, also of a stream that
-- nobody asks for any more; "spent" where nothing of that is left.
local function once_more(execution)
  local reply, tail = {'claimed'}, ':' .. execution
  for _, stream in ipairs(all_streams()) do
    for _, member in ipairs(call('ZRANGE', STARTED .. stream, 0, -1)) do
      if string.sub(member, -#tail) == tail then
        local id = string.sub(member, 1, -#tail - 1)
        add(reply, stream, id, (to_relay(id)))
      end
    end
  end
  if #reply == 1 then reply[1] = 'spent' end
  return reply
end

-- Ends every claim of one incarnation and strikes it off; returns how many jobs came back, and the
-- name it had.
local function strike(incarnation)
  local count = 0
  for _, stream in ipairs(all_streams()) do
    local ids = {}
    for _, member in ipairs(call('ZRANGE', STARTED .. stream, 0, -1)) do
      local id, execution = string.match(member, '^([^:]+):(.+)$')
      if id and owner(execution) == incarnation then
        call('ZREM', STARTED .. stream, member)
        ids[#ids + 1] = id
      end
    end
    count = count + to_head(stream, ids)
  end
  local name = call('HGET', WORKER .. incarnation, 'name')
  if name then
    local key = RQ_WORKER .. name
    for _, queue in ipairs(call('SMEMBERS', QUEUES)) do
      call('SREM', RQ_WORKERS .. ':' .. string.sub(queue, 10), key)
    end
    call('SREM', RQ_WORKERS, key)
    call('DEL', key)
  end
  call('DEL', WORKER .. incarnation)
  call('HDEL', WORKERS, incarnation)
  call('HDEL', PROCESSES, incarnation)
  call('HDEL', GRANTS, incarnation)
  -- With nobody left to probe, nothing is paused: who starts next tries at once.
  if call('HLEN', WORKERS) == 0 then call('DEL', ROUTES) end
  return count, name or incarnation
end
