-- ARGV: incarnation, name, process. A second call changes nothing.
local incarnation, name, process = ARGV[1], ARGV[2], ARGV[3]
if call('HSETNX', WORKERS, incarnation, 0) == 0 then return 0 end
call('HSET', PROCESSES, incarnation, process)
call('HSET', GRANTS, incarnation, 0)
call('HSET', WORKER .. incarnation, 'name', name, 'claim', 0, 'flush', 0, 'results', '')
return 1
