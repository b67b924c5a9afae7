-- Raises the fence to a new epoch, so that no batch sent before can be applied any more, and says
-- the number of the last one that was; -1 when the fence stands higher already.
-- KEYS: the committer's fence. ARGV: the new epoch, seconds that the fence outlives its committer.
local fence = redis.call('HMGET', KEYS[1], 'epoch', 'batch')
if fence[1] and tonumber(fence[1]) > tonumber(ARGV[1]) then
  return -1
end
local batch = fence[2] or '0'
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'batch', batch)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return tonumber(batch)
