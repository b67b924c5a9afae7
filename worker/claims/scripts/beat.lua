-- ARGV: incarnation, connections limit, connections open, seconds ahead at which a due time can
-- only be a clock's fault, what it has to say of its routes (JSON, see `routes_as_told`), number of
-- streams, stream ..., now and then RQ worker field, value, ...
-- Returns {} when struck off, else {suspended, share, something is due, {incarnation, counter,
-- process, ...}, JSON of the pauses of its routes by name, rows of refusals: route, row, ...,
-- the APIs to which somebody found a way}.
local incarnation, limit, open = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if call('HEXISTS', WORKERS, incarnation) == 0 then return {} end
call('HINCRBY', WORKERS, incarnation, 1)

local name = call('HGET', WORKER .. incarnation, 'name')
-- Whole each time: a stock tool strikes off a worker whose key ran out while Redis stood still.
local streams, key = tonumber(ARGV[6]), RQ_WORKER .. name
if ARGV[7 + streams] then
  call('HSET', key, unpack(ARGV, 7 + streams))
  call('EXPIRE', key, 60)
  call('SADD', RQ_WORKERS, key)
  local served = {}
  for index = 7, 6 + streams do
    served[ARGV[index]] = true
    call('SADD', QUEUES, QUEUE .. ARGV[index])
    call('SADD', RQ_WORKERS .. ':' .. QUEUE_NAME .. ARGV[index], key)
  end
  -- Streams may have gone since the last time: it must be seen that nobody serves them.
  for _, stream in ipairs(all_streams()) do
    if not served[stream] then call('SREM', RQ_WORKERS .. ':' .. QUEUE_NAME .. stream, key) end
  end
end

local beats = call('HGETALL', WORKERS)
local incarnations, others = {}, {}
for index = 1, #beats, 2 do
  incarnations[#incarnations + 1] = beats[index]
  if beats[index] ~= incarnation then
    others[#others + 1] = beats[index]
    others[#others + 1] = tonumber(beats[index + 1])
    others[#others + 1] = call('HGET', PROCESSES, beats[index]) or ''
  end
end

-- Writes what the worker says of its routes and returns the pauses of all it has: `routes` are their
-- names, `apis` those it found a way to, `acts` are ["closed", name, record], ["opened", name] or ["probe", name].
-- Whoever has the word to probe a route, and lives, keeps it until it says how that went; what others
-- say meanwhile was under way before and is no news.
local function routes_as_told(words, share)
  local told = cjson.decode(words)
  for _, api in ipairs(told.apis) do call('SADD', APIS, api) end
  local names = ' ' .. table.concat(told.routes, ' ') .. ' '
  local key, time = WORKER .. incarnation, now()
  local new = call('HGET', key, 'routes') ~= names
  if new then call('HSET', key, 'routes', names) end
  local records, flat = {}, call('HGETALL', ROUTES)
  if #flat == 0 and #told.acts == 0 then return '{}' end
  for index = 1, #flat, 2 do records[flat[index]] = cjson.decode(flat[index + 1]) end

  local function write(name, record)
    records[name] = record
    call('HSET', ROUTES, name, cjson.encode(record))
  end
  local function has(worker, name)
    local routes = call('HGET', WORKER .. worker, 'routes')
    return routes and string.find(routes, ' ' .. name .. ' ', 1, true)
  end

  local tried = {} -- by this worker, just now: it need not be tried again because it is new
  for _, act in ipairs(told.acts) do
    local what, name, record = act[1], act[2], act[3]
    local before = records[name]
    tried[name] = what == 'closed'
    if what == 'opened' then
      records[name] = nil
      call('HDEL', ROUTES, name)
    elseif what == 'probe' then
      if before then
        before.probe_at = time
        write(name, before)
      end
    elseif not before or before.prober == incarnation then
      record.since = before and before.since or time - record.age
      record.probe_at, record.prober = time + record.wait, ''
      record.age, record.wait = nil, nil
      write(name, record)
    end
  end

  local mine = {}
  for name, record in pairs(records) do
    if string.find(names, ' ' .. name .. ' ', 1, true) then
      -- Without a connection of its own it could not probe by mail: another one may.
      if record.prober == incarnation and share == 0 then
        record.prober = ''
        write(name, record)
      end
      local probing = record.prober ~= '' and has(record.prober, name)
      -- When a worker comes it is tried at once. Much too far ahead: the clock was set.
      local came = new and not tried[name]
      local due = came or time >= record.probe_at or record.probe_at - time > 900
      if not probing and due then
        record.probe_at = math.min(record.probe_at, time)
        record.prober = share > 0 and incarnation or ''
        if came or record.prober ~= '' then write(name, record) end
      end
      record.age, record.wait = time - record.since, record.probe_at - time
      record.mine = record.prober == incarnation
      mine[name] = record
    else
      local known = false
      for _, each in ipairs(incarnations) do known = known or has(each, name) end
      if not known then call('HDEL', ROUTES, name) end
    end
  end
  return next(mine) and cjson.encode(mine) or '{}'
end

-- An equal part each, what is over to the first by name; but never what another still holds.
table.sort(incarnations)
local held = 0
for index = 1, #others, 3 do
  held = held + tonumber(call('HGET', GRANTS, others[index]) or 0)
end
local share = math.floor(limit / #incarnations)
for place, each in ipairs(incarnations) do
  if each == incarnation and place <= limit % #incarnations then share = share + 1 end
end
share = math.max(0, math.min(share, limit - held))
local grant = tostring(math.max(share, open))
if call('HGET', GRANTS, incarnation) ~= grant then call('HSET', GRANTS, incarnation, grant) end

local time, due = now(), 0
for index = 7, 6 + streams do
  local scheduled = SCHEDULED .. ARGV[index]
  due = due + call('ZCOUNT', scheduled, '-inf', time)
    + call('ZCOUNT', scheduled, time + tonumber(ARGV[4]), '+inf')
end
-- Whatever stands there, the heart beats.
local fine, routes = pcall(routes_as_told, ARGV[5], share)
if not fine then
  call('DEL', ROUTES)
  routes = '{}'
end
return {call('EXISTS', SUSPENDED), share, due, others, routes, call('HGETALL', REFUSALS), call('SMEMBERS', APIS)}
