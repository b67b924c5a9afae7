#!lua flags=allow-oom
-- ARGV: say, key, headline, seconds for which it is said then; or over, key.
-- franker:alerts: key -> JSON {until, headline}. Of all processes that see a trouble one says it.
-- Returns, for say, for how many seconds it has been said already (as text), "" when it is to be said
-- now; for over, 1 when that is to be said.
local what, key = ARGV[1], ARGV[2]
if what == 'over' then return redis.call('HDEL', ALERTS, key) end
local time = redis.call('TIME')
local now, lasts = tonumber(time[1]) + tonumber(time[2]) / 1000000, tonumber(ARGV[4])
local said = redis.call('HGET', ALERTS, key)
if said then
  local left = cjson.decode(said)['until'] - now
  -- Much more than it can be: the clock was set. A little more comes of JSON's 14 digits.
  if left > 0 and left <= lasts + 1 then return tostring(left) end
end
redis.call('HSET', ALERTS, key, cjson.encode({['until'] = now + lasts, headline = ARGV[3]}))
return ''
