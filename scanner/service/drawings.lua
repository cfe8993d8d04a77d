-- What was drawn of scans, all of it together within a budget: the oldest go first.
--
-- In: ARGV = name of a step, its arguments. Out: 1 when it was done, else 0.
-- One reason: a report is a hundred times as large as a row, and what nobody may lose must not fill up with it.
--
-- laescan:artifact:ID   hash: the fence that its worker had, how many bytes, and what was drawn by its name
-- laescan:artifacts     "ID BYTES" of each, by the microsecond when it ends: all live equally long, so by age

local ARTIFACT, ARTIFACTS = 'laescan:artifact:', 'laescan:artifacts'

local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function forget(id)
  local bytes = redis.call('HGET', ARTIFACT .. id, 'bytes')
  if not bytes then return 0 end
  redis.call('ZREM', ARTIFACTS, id .. ' ' .. bytes)
  return redis.call('DEL', ARTIFACT .. id)
end

-- A quarter of a Redis that has a limit: a ledger, or remembered verdicts, may live in the same one.
local function room(most_bytes)
  local about = redis.pcall('INFO', 'memory') -- which an access list may forbid
  local limit = type(about) == 'string' and tonumber(about:match('\nmaxmemory:(%d+)')) or 0
  return limit > 0 and math.min(most_bytes, limit / 4) or tonumber(most_bytes)
end

local step = {}

-- Names and data of one attempt. What a later attempt left stays; a Redis without memory left refuses the first write.
function step.keep(id, fence, life_s, most_bytes, ...)
  local place, most, bytes, drawn = ARTIFACT .. id, room(most_bytes), 0, {...}
  local before = redis.call('HGET', place, 'fence')
  for i = 2, #drawn, 2 do bytes = bytes + #drawn[i] end
  if bytes > most or (before and tonumber(before) > tonumber(fence)) then return 0 end
  if before then forget(id) end
  redis.call('HSET', place, 'fence', fence, 'bytes', bytes, unpack(drawn))
  redis.call('EXPIRE', place, life_s)
  redis.call('ZREMRANGEBYSCORE', ARTIFACTS, '-inf', string.format('%d', now_us()))
  redis.call('ZADD', ARTIFACTS, string.format('%d', now_us() + life_s * 1000000), id .. ' ' .. bytes)
  redis.call('EXPIRE', ARTIFACTS, life_s)
  local total = 0
  for _, member in ipairs(redis.call('ZREVRANGE', ARTIFACTS, 0, -1)) do
    local which, size = member:match('^(.+) (%d+)$')
    total = total + size
    if total > most then
      redis.call('ZREM', ARTIFACTS, member)
      redis.call('DEL', ARTIFACT .. which)
    end
  end
  return 1
end

-- The same that lies beside another scan.
function step.copy(id, fence, life_s, most_bytes, from)
  local found, drawn = redis.call('HGETALL', ARTIFACT .. from), {}
  for i = 1, #found, 2 do
    if found[i] ~= 'fence' and found[i] ~= 'bytes' then
      drawn[#drawn + 1] = found[i]
      drawn[#drawn + 1] = found[i + 1]
    end
  end
  if #drawn == 0 then return 0 end
  return step.keep(id, fence, life_s, most_bytes, unpack(drawn))
end

-- What an attempt left whose outcome was not taken.
function step.take_back(id, fence)
  if redis.call('HGET', ARTIFACT .. id, 'fence') ~= fence then return 0 end
  return forget(id)
end

function step.forget(id) return forget(id) end

return step[ARGV[1]](unpack(ARGV, 2))
