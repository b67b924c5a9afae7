-- ARGV: incarnation, turn of the holds to which this worker keeps: it has nothing in its memory that
-- was claimed before. Says whether it is known.
if call('HEXISTS', WORKERS, ARGV[1]) == 0 then return 0 end
call('HSET', WORKER .. ARGV[1], 'turn', ARGV[2])
return 1
