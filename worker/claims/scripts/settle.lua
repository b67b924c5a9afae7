-- ARGV: incarnation, number, date, operations as JSON (one word is cheaper than many), each of
--   [mark, stream, id, execution, dot]
--   [gone | defer | back | keep, stream, id, execution, envelope, dot, delay, accepted_ms]
--   [refused, stream, id, execution, route, reply, how many alike speak against the route]
--   [passed, route, name of the row that is over, "*" for whatever it is]
--   and, after a settlement, where recipients died: died_id, died_envelope, why, why_packed, whose ('' where none did and more
--   follows); where some are to be asked for: asked_id, asked_envelope, asked_dot, asked_delay
-- Returns {word, results}: word done | gone (struck off) | late (a number below the last);
-- results one letter an operation: 1 done (of a refusal: it is the message's own, which dies), 0 the claim is no longer ours, ! refused by Redis,
-- p the refusal is the route's fault; after them the rows of refusals as they now stand: route, row,
-- ...
local incarnation, number, date = ARGV[1], ARGV[2], ARGV[3]
local fence = call('HMGET', WORKER .. incarnation, 'flush', 'results')
if not fence[1] then return {'gone', ''} end
if fence[1] == number then return {'done', fence[2], call('HGETALL', REFUSALS)} end
if tonumber(number) < tonumber(fence[1]) then return {'late', ''} end

local heads = {}
local time = now()

-- Makes the dead job out of `job`: the job itself when nothing of it stays, else a copy.
local function bury(stream, job, id, envelope, why, packed, whose, whole)
  while not whole and call('EXISTS', JOB .. id) == 1 do id = id .. '-1' end
  local dead = JOB .. id
  if whole then
    if dead ~= job then
      if call('EXISTS', dead) == 1 then
        id = id .. '-1'
        dead = JOB .. id
      end
      call('RENAME', job, dead)
    end
  else
    call('HSET', dead, unpack(call('HGETALL', job)))
  end
  call('HDEL', dead, 'dot', 'worker_name', 'started_at', 'claim', 'late', 'leaving', 'doubted')
  call('HSET', dead, 'data', '["' .. TASK .. '",null,["' .. id .. '"],{}]',
    'description', 'mail ' .. id, 'status', 'failed', 'envelope', envelope,
    'exc_info', why, 'ended_at', date, 'died', date)
  call('ZADD', FAILED .. stream, 'inf', id)
  if whose ~= '' then
    local owner = string.sub(whose, 2)
    call('ZADD', UNTOLD .. owner, time, id)
    call('HSETNX', TOLD, owner, 0)
  end
  -- Where RQ's tools look for the reason; a tool that deletes the job leaves this, for a year.
  call('XADD', RESULTS .. id, 'MAXLEN', 10, '*', 'type', 2, 'worker_name', '', 'exc_string', packed)
  call('EXPIRE', RESULTS .. id, 31536000)
end

-- Makes a job of its own out of those of `job` that are to be asked for at Postmark.
local function split(stream, job, id, envelope, dot, due, accepted_ms)
  while call('EXISTS', JOB .. id) == 1 do id = id .. '-1' end
  local asked = JOB .. id
  call('HSET', asked, unpack(call('HGETALL', job)))
  call('HDEL', asked, 'worker_name', 'started_at', 'claim', 'died', 'doubted')
  call('HSET', asked, 'data', '["' .. TASK .. '",null,["' .. id .. '"],{}]',
    'description', 'mail ' .. id, 'status', 'scheduled', 'envelope', envelope, 'dot', dot)
  call('ZADD', SCHEDULED .. stream, due, id)
  call('ZADD', DEFERRED .. stream, accepted_ms, id)
end

local function mark(_, stream, id, execution, dot)
  if call('HGET', JOB .. id, 'claim') ~= execution then return '0' end
  call('HSET', JOB .. id, 'dot', dot)
  return '1'
end

-- Whether a message that was refused as a whole dies of it: 1, or p where as many different ones were
-- refused alike with nothing taken between, by whatever worker: then none dies until something is
-- taken. One that was refused in such a time, and is again after it, dies and says nothing of others.
local place
local function refused(_, stream, id, execution, route, reply, most)
  local job = JOB .. id
  local found = call('HMGET', job, 'claim', 'doubted')
  if found[1] ~= execution then return '0' end
  local known, row = pcall(cjson.decode, call('HGET', REFUSALS, route) or '')
  if not known then row = {id = incarnation .. '-' .. number .. '.' .. place} end
  if not row.closed then
    if found[2] and found[2] ~= row.id then return '1' end
    if row.reply ~= reply then row.reply, row.messages = reply, {} end
    local message, counted = string.match(id, '^[^-]+'), false
    for _, each in ipairs(row.messages) do counted = counted or each == message end
    if not counted then table.insert(row.messages, message) end
    row.closed = #row.messages >= most
  end
  call('HSET', REFUSALS, route, cjson.encode(row))
  call('EXPIRE', REFUSALS, 604800)
  if not row.closed then return '1' end
  call('HSET', job, 'doubted', row.id)
  return 'p'
end

local function passed(_, route, id)
  local known, row = pcall(cjson.decode, call('HGET', REFUSALS, route) or '')
  if not known or id == '*' or row.id == id then call('HDEL', REFUSALS, route) end
  return '1'
end

local function settle(after, stream, id, execution, envelope, dot, delay, accepted_ms,
    died_id, died_envelope, why, packed, whose, asked_id, asked_envelope, asked_dot, asked_delay)
  local job, member = JOB .. id, id .. ':' .. execution
  if after == 'keep' then
    if not call('ZSCORE', STARTED .. stream, member) then return '0' end
  elseif call('ZREM', STARTED .. stream, member) == 0 then
    return '0'
  end
  local died = died_id and died_id ~= ''
  if after == 'gone' and not died then
    call('DEL', job, RESULTS .. id)
    return '1'
  end
  if call('EXISTS', job) == 0 then
    call('ZREM', STARTED .. stream, member)
    return '1'
  end
  if asked_id then
    split(stream, job, asked_id, asked_envelope, asked_dot, time + asked_delay, accepted_ms)
  end
  if died then
    bury(stream, job, died_id, died_envelope, why, packed, whose, after == 'gone')
    if after == 'gone' then
      if died_id ~= id then call('DEL', RESULTS .. id) end
      return '1'
    end
  end
  if envelope ~= '' then
    call('HSET', job, 'envelope', envelope)
    call('HDEL', job, 'died')
  end
  if dot == '' then call('HDEL', job, 'dot') else call('HSET', job, 'dot', dot) end
  if after == 'defer' then
    call('HSET', job, 'status', 'scheduled')
    call('HDEL', job, 'worker_name', 'started_at', 'claim')
    call('ZADD', SCHEDULED .. stream, time + delay, id)
    call('ZADD', DEFERRED .. stream, accepted_ms, id)
  elseif after == 'back' then
    heads[stream] = heads[stream] or {}
    table.insert(heads[stream], id)
  end
  return '1'
end

local verbs, results = {mark = mark, refused = refused, passed = passed}, {}
for index, words in ipairs(cjson.decode(ARGV[4])) do
  place = index
  local fine, result = pcall(verbs[words[1]] or settle, unpack(words))
  results[index] = fine and result or '!'
end
for stream, ids in pairs(heads) do to_head(stream, ids) end
results = table.concat(results)
call('HSET', WORKER .. incarnation, 'flush', number, 'results', results)
return {'done', results, call('HGETALL', REFUSALS)}
