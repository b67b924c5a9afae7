#!lua flags=allow-oom
-- with: holding
-- Makes deferred jobs due at once, but for those that Postmark is asked for and those that are held.
-- ARGV: queue name, ids. Says how many are due, asked for, held.
local queue = ARGV[1]
local stream, key = string.sub(queue, #QUEUE_PREFIX + 1), SCHEDULED .. queue
local holds = standing_holds()
local time = redis.call('TIME')[1]
local due, asked, held = 0, 0, 0
for index = 2, #ARGV do
  local envelope = redis.call('HGET', JOB .. ARGV[index], 'envelope')
  if envelope and redis.call('ZSCORE', key, ARGV[index]) then
    local fine, mail = pcall(cjson.decode, envelope)
    if fine and type(mail) == 'table' and (tonumber(mail.ask) or 0) > 0 then
      asked = asked + 1
    elseif holds and covering(holds, stream, envelope) then
      held = held + 1
    else
      redis.call('ZADD', key, 'XX', time, ARGV[index])
      due = due + 1
    end
  end
end
if due > 0 then redis.call('PUBLISH', WAKE_CHANNEL, queue) end
return {due, asked, held}
