-- ARGV: incarnation, the counter it was last seen at ("" for whatever it is: its own goodbye).
-- Returns {struck off now: 1 or 0, jobs that came back, its name}.
local beat = call('HGET', WORKERS, ARGV[1])
if not beat or (ARGV[2] ~= '' and beat ~= ARGV[2]) then return {0, 0, ''} end
return {1, strike(ARGV[1])}
