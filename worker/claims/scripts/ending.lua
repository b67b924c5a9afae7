-- ARGV: stream, place, count. Looks at so many of the messages that wait for a stream, from that
-- place on: those of its queue, then the deferred ones, then the held ones. Returns {messages looked
-- at, id, envelope, ...} of those that have an end (`expires`). One asked for at Postmark is left out until that is due.
local stream, place, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local queued, time = call('LLEN', QUEUE .. stream), now()
local ids, due = call('LRANGE', QUEUE .. stream, place, place + count - 1), {}
if #ids < count then
  local from = math.max(0, place - queued)
  local more = call('ZRANGE', SCHEDULED .. stream, from, from + count - #ids - 1, 'WITHSCORES')
  for index = 1, #more, 2 do
    ids[#ids + 1] = more[index]
    due[more[index]] = tonumber(more[index + 1])
  end
end
if #ids < count then
  local from = math.max(0, place - queued - call('ZCARD', SCHEDULED .. stream))
  for _, id in ipairs(call('ZRANGE', HELD .. stream, from, from + count - #ids - 1)) do
    ids[#ids + 1] = id
  end
end
local reply = {#ids}
for _, id in ipairs(ids) do
  local envelope = call('HGET', JOB .. id, 'envelope')
  if envelope and string.find(envelope, '"exp":', 1, true) then
    local later = due[id] and due[id] > time and string.find(envelope, '"ask":', 1, true)
    if not later then
      reply[#reply + 1] = id
      reply[#reply + 1] = envelope
    end
  end
end
return reply
