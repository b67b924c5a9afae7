-- ARGV: incarnation, number, date, worker's name, id and number of the store as this host knows it,
-- stream, then id, envelope of each message wanted
-- Claims those that wait, in the queue, deferred or held, with just that envelope. Returns what claim.lua
-- does, of which this is one more call: {word, stream, id, envelope, body, dot, died, ...}.
-- What a backup brought back stays as it is until a person has seen to it: it may long be sent.
local incarnation, number = ARGV[1], tonumber(ARGV[2])
local date, name, stream = ARGV[3], ARGV[4], ARGV[7]
local execution = incarnation .. '-' .. ARGV[2]
local last = call('HGET', WORKER .. incarnation, 'claim')
if not last then return {'gone'} end
last = tonumber(last)
if last < number - 1 then return {'gone'} end
if ARGV[5] ~= '' then
  local store = call('HMGET', STORE, 'id', 'tick')
  if not store[1] or (store[1] == ARGV[5] and tonumber(store[2]) < tonumber(ARGV[6])) then
    return {'older'}
  end
end
local restored = {}
for _, hold in ipairs(standing_holds() or {}) do
  if string.match(hold.name, '^' .. RESTORED .. '%d*$') then restored[#restored + 1] = hold end
end
local reply = {'claimed'}
if number < last then return reply end
if number == last then return once_more(execution) end

for index = 8, #ARGV, 2 do
  local id = ARGV[index]
  local job = JOB .. id
  local fields = to_relay(id)
  if fields[1] == ARGV[index + 1] and not claimed(stream, id, fields[6])
    and not covering(restored, stream, fields[1]) then
    local waits = call('LREM', QUEUE .. stream, 0, id) + call('ZREM', SCHEDULED .. stream, id)
      + call('ZREM', HELD .. stream, id)
    if waits > 0 then
      call('ZREM', DEFERRED .. stream, id)
      call('HSET', job, 'status', 'started', 'started_at', date, 'worker_name', name,
        'claim', execution)
      call('ZADD', STARTED .. stream, 'inf', id .. ':' .. execution)
      add(reply, stream, id, fields)
    end
  end
end
if #reply > 1 then call('HSET', WORKER .. incarnation, 'claim', number) end
return reply
