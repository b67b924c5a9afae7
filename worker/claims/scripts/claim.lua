-- ARGV: incarnation, number, octets at most, date, worker's name, seconds ahead at which a due time
-- can only be a clock's fault, id and number of the store as this host knows it ('' for unknown),
-- stream, slots, ...
-- Returns {word, stream, id, envelope, body, dot, died, ...}; word: claimed | emptied (and nothing was
-- left behind in the queues that were asked) | spent (the number was used, and nothing of what it claimed
-- is left) | suspended | gone | older (this store is an older copy of that, or a new one: nothing of it is
-- sent before that is settled). In place of a large body stands
-- how many octets it has; whoever claims reads it by itself.
-- A number that was used answers with what it claimed; a number below it (a call that lay in a
-- socket while its repeat was served) claims nothing.
local incarnation, number = ARGV[1], tonumber(ARGV[2])
local most, date, name, absurd = tonumber(ARGV[3]), ARGV[4], ARGV[5], tonumber(ARGV[6])
local execution = incarnation .. '-' .. ARGV[2]
local last = call('HGET', WORKER .. incarnation, 'claim')
if not last then return {'gone'} end
last = tonumber(last)
-- Below the last answer that this worker has had: the store went back, and its claims with it.
if last < number - 1 then return {'gone'} end
if ARGV[7] ~= '' then
  local store = call('HMGET', STORE, 'id', 'tick')
  if not store[1] or (store[1] == ARGV[7] and tonumber(store[2]) < tonumber(ARGV[8])) then
    return {'older'}
  end
end
local reply = {'claimed'}
if number < last then return reply end

-- Whether an id is of our making. Such a job without envelope and body is what RQ saved of its copy
-- after the message had gone out.
local function ours(id)
  return string.match(id, '^[0-9a-z]+') and #string.match(id, '^[0-9a-z]+') == 26
end

if number == last then return once_more(execution) end
if call('EXISTS', SUSPENDED) == 1 then return {'suspended'} end

-- Puts what is due at its queue's tail; says whether there may be more. Here, and not at a heartbeat,
-- so that a stock worker that blocks on the queue does not get it, to put it off again.
local AT_ONCE = 500
local function promote(stream, from, to)
  local ids = call('ZRANGEBYSCORE', SCHEDULED .. stream, from, to, 'LIMIT', 0, AT_ONCE)
  for _, id in ipairs(ids) do
    local job = call('HMGET', JOB .. id, 'status', 'claim')
    call('ZREM', SCHEDULED .. stream, id)
    call('ZREM', DEFERRED .. stream, id)
    if job[1] and nowhere_else(stream, id, job[1], job[2]) then
      call('HSET', JOB .. id, 'status', 'queued', 'enqueued_at', date)
      call('RPUSH', QUEUE .. stream, id)
    end
  end
  return #ids == AT_ONCE
end

-- Sets a message aside that a hold takes; everything about it stays as it is.
local function aside(holds, stream, id)
  local job = call('HMGET', JOB .. id, 'envelope', 'status', 'claim')
  local here = job[1] and not claimed(stream, id, job[3])
    and (job[2] == 'queued' or nowhere_else(stream, id, job[2]))
  if not here or not covering(holds, stream, job[1]) then return false end
  call('HSET', JOB .. id, 'status', 'deferred')
  call('ZADD', HELD .. stream, 0, id)
  return true
end

local time, octets, full, more = now(), 0, false, false
local holds, returning = standing_holds()
local set_aside = 0
local MOST_SET_ASIDE = 2000 -- in one call: some ten milliseconds
for index = 9, #ARGV, 2 do
  local stream, want, claims = ARGV[index], tonumber(ARGV[index + 1]), {}
  if (returning and (returning[''] or returning[stream])) or (holds and stream_hold(holds, stream)) then
    want = 0
  end
  if want > 0 then
    more = promote(stream, '-inf', time) or more
    more = promote(stream, time + absurd, '+inf') or more
  end
  local behind = want > 0 -- whether there may be any
  while want > 0 and behind and not full and set_aside < MOST_SET_ASIDE do
    local ids = call('LPOP', QUEUE .. stream, want) or {}
    behind = #ids == want
    for place, id in ipairs(ids) do
      local job = JOB .. id
      local held = holds and aside(holds, stream, id)
      local fields, size = {}, 0
      if not held then fields, size = to_relay(id) end
      if octets > 0 and octets + size > most then
        for back = #ids, place, -1 do call('LPUSH', QUEUE .. stream, ids[back]) end
        full = true
        break
      end
      local status, claim = fields[5], fields[6]
      if held then
        set_aside = set_aside + 1
      elseif claimed(stream, id, claim) then
        call('HSET', job, 'status', 'started')
      elseif ours(id) and status and not fields[1] and not fields[2] then
        call('DEL', job)
      elseif status and (status == 'queued' or nowhere_else(stream, id, status)) then
        call('HSET', job, 'status', 'started', 'started_at', date,
          'worker_name', name, 'claim', execution)
        claims[#claims + 1] = 'inf'
        claims[#claims + 1] = id .. ':' .. execution
        if #claims >= 4000 then
          call('ZADD', STARTED .. stream, unpack(claims))
          claims = {}
        end
        add(reply, stream, id, fields)
        octets = octets + size
        want = want - 1
      end
    end
  end
  more = more or behind
  if #claims > 0 then call('ZADD', STARTED .. stream, unpack(claims)) end
  -- There is more behind them: whoever waits for work shall come again at once.
  if set_aside > 0 then call('PUBLISH', WAKE, QUEUE_NAME .. stream) end
end
if #reply > 1 then call('HSET', WORKER .. incarnation, 'claim', number) end
if not more and not full and set_aside == 0 then reply[1] = 'emptied' end
return reply
