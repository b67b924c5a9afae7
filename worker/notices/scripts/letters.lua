-- Says of jobs what a notice about them needs: a part of each message only, since some are large.
-- ARGV: octets of each message at most, then ids.
-- Says for each: origin, status, envelope, beginning of the message, 1 if it was told late, 1 if it
-- was told to leave; all empty where there is no such job.
local words = {}
for i = 2, #ARGV do
  local job = JOB .. ARGV[i]
  local found = redis.call('HMGET', job, 'origin', 'status', 'envelope', 'late', 'leaving')
  local body = found[1] and ARGV[1] ~= '0' and redis.call('HGET', job, 'body')
  for _, word in ipairs({found[1] or '', found[2] or '', found[3] or '',
      body and string.sub(body, 1, ARGV[1]) or '', found[4] or '', found[5] or ''}) do
    words[#words + 1] = word
  end
end
return words
