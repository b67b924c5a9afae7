-- ARGV: incarnation, name, process, RQ worker field/value ... after "--" , queues.
-- A second call changes nothing.
local incarnation, name, process = ARGV[1], ARGV[2], ARGV[3]
if call('HSETNX', WORKERS, incarnation, 0) == 0 then return 0 end
call('HSET', PROCESSES, incarnation, process)
call('HSET', GRANTS, incarnation, 0)
call('HSET', WORKER .. incarnation, 'name', name, 'claim', 0, 'flush', 0, 'results', '')
local key, at = RQ_WORKER .. name, 4
while ARGV[at] ~= '--' do
  call('HSET', key, ARGV[at], ARGV[at + 1])
  at = at + 2
end
call('EXPIRE', key, 60)
call('SADD', RQ_WORKERS, key)
for index = at + 1, #ARGV do
  call('SADD', QUEUES, QUEUE .. ARGV[index])
  call('SADD', RQ_WORKERS .. ':' .. QUEUE_NAME .. ARGV[index], key)
end
return 1
