-- Words about holds, shared by all scripts that ask for them.
-- HOLDS: hash of name -> {stream, sender, rule, before: what it selects, each left out where it does
-- not matter; except: list of such selections that it lets go; since, by, reason}; or a release that is
-- under way: {stream, returning: since when, names of the holds}. Nobody claims of its streams, so that the order stays.

-- Whether `value` fits a pattern in which * stands for any run of characters; in linear time.
local function fits(pattern, value)
  local first = string.find(pattern, '*', 1, true)
  if not first then return pattern == value end
  if string.sub(value, 1, first - 1) ~= string.sub(pattern, 1, first - 1) then return false end
  local at, from = first, first + 1
  while true do
    local star = string.find(pattern, '*', from, true)
    local piece = string.sub(pattern, from, star and star - 1)
    if not star then
      return #value - #piece + 1 >= at and string.sub(value, #value - #piece + 1) == piece
    end
    local _, ends = string.find(value, piece, at, true)
    if not ends then return false end
    at, from = ends + 1, star + 1
  end
end

local function is_whole(selection)
  return not (selection.sender or selection.rule or selection.before)
end

-- Whether a selection takes a message with this envelope (decoded).
local function selects(selection, stream, mail)
  if selection.stream and selection.stream ~= stream then return false end
  if selection.rule and selection.rule ~= (mail.rule or '') then return false end
  if selection.before and not (tonumber(mail.at) and mail.at <= selection.before) then return false end
  if not selection.sender then return true end
  local reverse = mail.rp and mail.rp ~= '' and mail.rp or '<>'
  return fits(selection.sender, string.lower(reverse))
    or fits(selection.sender, string.lower(mail.f or ''))
end

-- Leaves out of a selection what makes no sense; says whether there was any.
local function sift(selection)
  local odd = false
  for _, field in ipairs({'stream', 'sender', 'rule'}) do
    if selection[field] ~= nil and type(selection[field]) ~= 'string' then
      selection[field], odd = nil, true
    end
  end
  if selection.before ~= nil and type(selection.before) ~= 'number' then
    selection.before, odd = nil, true
  end
  return odd
end

-- Makes sense of any record: where it makes none, more is held, and less is let go.
local function sifted(hold)
  sift(hold)
  local except = {}
  for _, selection in pairs(type(hold.except) == 'table' and hold.except or {}) do
    if type(selection) == 'table' and not sift(selection) then except[#except + 1] = selection end
  end
  hold.except = except
  return hold
end

-- The holds that stand, as a list with their names, and the streams whose mail is being put back, as
-- keys ('' for all); nil in place of each when there is none.
local function standing_holds()
  local flat, holds, returning = redis.call('HGETALL', HOLDS), nil, nil
  for index = 1, #flat, 2 do
    local fine, hold = pcall(cjson.decode, flat[index + 1])
    if fine and string.find(flat[index + 1], '^%s*{') then -- no list, which Lua cannot tell from it
      hold.name = flat[index]
      if hold.returning then
        returning = returning or {}
        returning[type(hold.stream) == 'string' and hold.stream or ''] = true
      else
        holds = holds or {}
        holds[#holds + 1] = sifted(hold)
      end
    end
  end
  return holds, returning
end

-- The first of `holds` that takes all mail of a stream, whatever it is.
local function stream_hold(holds, stream)
  for _, hold in ipairs(holds) do
    if is_whole(hold) and (not hold.stream or hold.stream == stream) then
      local exempt = false
      for _, selection in ipairs(hold.except or {}) do
        exempt = exempt or not selection.stream or selection.stream == stream
      end
      if not exempt then return hold end
    end
  end
end

-- The first of `holds` that takes a message, by its envelope as it is kept.
local function covering(holds, stream, envelope)
  local fine, mail = pcall(cjson.decode, envelope)
  if not fine or type(mail) ~= 'table' then return stream_hold(holds, stream) end
  for _, hold in ipairs(holds) do
    if selects(hold, stream, mail) then
      local exempt = false
      for _, selection in ipairs(hold.except or {}) do
        exempt = exempt or selects(selection, stream, mail)
      end
      if not exempt then return hold end
    end
  end
end
