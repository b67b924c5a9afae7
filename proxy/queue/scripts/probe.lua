#!lua flags=allow-oom
-- Lets paused routes be tried at once, as far as they concern one of the streams in ARGV (none: all).
-- Says how many.
local wanted, count = {}, 0
for _, stream in ipairs(ARGV) do wanted[stream] = true end
local time, flat = redis.call('TIME')[1], redis.call('HGETALL', ROUTES)
for index = 1, #flat, 2 do
  local fine, record = pcall(cjson.decode, flat[index + 1])
  local concerned = #ARGV == 0
  for _, stream in ipairs(fine and record.streams or {}) do
    concerned = concerned or wanted[stream]
  end
  if fine and concerned then
    record.probe_at = math.min(tonumber(record.probe_at) or 0, tonumber(time))
    redis.call('HSET', ROUTES, flat[index], cjson.encode(record))
    count = count + 1
  end
end
return count
