-- ARGV: incarnation, connections limit, connections open, RQ worker field/value ...
-- Returns {} when struck off, else {suspended, share, {incarnation, counter, process, ...}}.
local incarnation, limit, open = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if call('HEXISTS', WORKERS, incarnation) == 0 then return {} end
call('HINCRBY', WORKERS, incarnation, 1)

local name = call('HGET', WORKER .. incarnation, 'name')
call('HSET', RQ_WORKER .. name, unpack(ARGV, 4))
call('EXPIRE', RQ_WORKER .. name, 60)

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
call('HSET', GRANTS, incarnation, math.max(share, open))
return {call('EXISTS', SUSPENDED), share, others}
