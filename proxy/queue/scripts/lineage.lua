#!lua flags=allow-oom
-- Looks whether this store is the one that is known, and moves its counter on.
-- STORE: hash of id and tick, a number that only rises; who has seen it at a number, and sees it at a
-- lower one, has an older copy before him.
-- ARGV: what is known, JSON of id -> {tick, time: when that was}; an id that nobody had; the name and
-- record of the hold for mail of a copy, JSON without `before`, NAME standing for its name in the
-- reason; 1 to move the counter of a known one.
-- Says {word, id, tick, turn, messages there, the hold's name, names of other holds that came with the
-- copy}; word: known | first (nothing was known) | other (a store of another id) | empty (a new one in
-- the place of one that was known) | restored.
local known = cjson.decode(ARGV[1])
local found = redis.call('HMGET', STORE, 'id', 'tick')
local id, tick, word = found[1], tonumber(found[2]), 'known'
local mark, mail = id and known[id], 0

if not (id and tick) then
  id, tick, word, mark = ARGV[2], 0, 'first', nil
  for _, each in pairs(known) do
    word = 'empty'
    if not mark or each.time > mark.time then mark = each end
  end
elseif not mark then
  word = next(known) and 'other' or 'first'
elseif tick < mark.tick then
  word = 'restored'
end

if word == 'empty' or word == 'restored' then
  for _, queue in ipairs(redis.call('SMEMBERS', QUEUES)) do
    local origin = string.sub(queue, #QUEUE + 1)
    if string.sub(origin, 1, #QUEUE_PREFIX) == QUEUE_PREFIX then
      mail = mail + redis.call('LLEN', queue) + redis.call('ZCARD', STARTED .. origin)
        + redis.call('ZCARD', SCHEDULED .. origin) + redis.call('ZCARD', HELD .. origin)
    end
  end
  -- One without a number, but with mail, is a copy of before there was one.
  if mail > 0 then word = 'restored' end
end

-- Whether a record holds all mail taken before some time, so that this time may be moved on.
local function holds_all(record)
  return type(record.before) == 'number' and not (record.stream or record.sender or record.rule)
    and not record.returning and (type(record.except) ~= 'table' or next(record.except) == nil)
end

local function is_restored(name)
  return string.match(name, '^' .. ARGV[3] .. '%d*$')
end

local name, others = '', {}
if word == 'restored' then
  -- Those that live are not what they were there: they begin anew, and the claims of old are ended.
  redis.call('DEL', WORKERS, PROCESSES, GRANTS)
  tick = math.max(tick, mark.tick)
  if mail > 0 then
    -- What has another meaning, or lets some mail go, is left alone: the next free name is taken.
    local hold, number = cjson.decode(ARGV[4]), 1
    while true do
      name = number == 1 and ARGV[3] or ARGV[3] .. number
      local before = redis.call('HGET', HOLDS, name)
      local fine, record = pcall(cjson.decode, before or '')
      hold.before = mark.time
      if fine and type(record) == 'table' and holds_all(record) then
        record.before = math.max(record.before, mark.time)
        hold = record
        break
      elseif not before then
        hold.reason = string.gsub(hold.reason, 'NAME', name)
        break
      end
      number = number + 1
    end
    redis.call('HSET', HOLDS, name, cjson.encode(hold))
    redis.call('INCR', TURN)
    for _, each in ipairs(redis.call('HKEYS', HOLDS)) do
      local fine, record = pcall(cjson.decode, redis.call('HGET', HOLDS, each))
      if not is_restored(each) and fine and type(record) == 'table' and not record.returning then
        others[#others + 1] = each
      end
    end
  end
end
if word == 'known' and ARGV[5] ~= '1' then
  return {word, id, tick, tonumber(redis.call('GET', TURN) or 0), 0, '', {}}
end
tick = tick + 1
redis.call('HSET', STORE, 'id', id, 'tick', tick)
return {word, id, tick, tonumber(redis.call('GET', TURN) or 0), mail, name, others}
