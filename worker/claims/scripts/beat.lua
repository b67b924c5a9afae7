-- ARGV: incarnation, connections limit, connections open, seconds ahead at which a due time can
-- only be a clock's fault, number of streams, stream ..., now and then RQ worker field, value, ...
-- Returns {} when struck off, else {suspended, share, something is due, {incarnation, counter,
-- process, ...}}.
local incarnation, limit, open = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if call('HEXISTS', WORKERS, incarnation) == 0 then return {} end
call('HINCRBY', WORKERS, incarnation, 1)

local name = call('HGET', WORKER .. incarnation, 'name')
-- Whole each time: a stock tool strikes off a worker whose key ran out while Redis stood still.
local streams, key = tonumber(ARGV[5]), RQ_WORKER .. name
if ARGV[6 + streams] then
  call('HSET', key, unpack(ARGV, 6 + streams))
  call('EXPIRE', key, 60)
  call('SADD', RQ_WORKERS, key)
  for index = 6, 5 + streams do
    call('SADD', QUEUES, QUEUE .. ARGV[index])
    call('SADD', RQ_WORKERS .. ':' .. QUEUE_NAME .. ARGV[index], key)
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
for index = 6, 5 + streams do
  local scheduled = SCHEDULED .. ARGV[index]
  due = due + call('ZCOUNT', scheduled, '-inf', time)
    + call('ZCOUNT', scheduled, time + tonumber(ARGV[4]), '+inf')
end
return {call('EXISTS', SUSPENDED), share, due, others}
