-- with: holding
-- Says of each job the name of the first hold that takes it, '' for none.
-- ARGV: holds to go by, as a JSON list ('' for those that stand), stream, ids.
local holds = ARGV[1] == '' and standing_holds() or ARGV[1] ~= '' and cjson.decode(ARGV[1])
local words = {}
for index = 3, #ARGV do
  local envelope = holds and redis.call('HGET', JOB .. ARGV[index], 'envelope')
  local hold = envelope and covering(holds, ARGV[2], envelope)
  words[#words + 1] = hold and hold.name or ''
end
return words
