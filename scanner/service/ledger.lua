-- The ledger's steps: each is read, judged and written in one go, so that no two processes can half-agree.
--
-- In: ARGV = name of a step, its arguments. Out: what the step found.
-- One reason: whoever lost its lease must not write. Every step of a worker compares state and fence before it sets.
--
-- laescan:scan:ID         a row: tenant source request queue order flight state stage percent attempt fence owner outcome
--                         created_ms requeued_ms started_ms finished_ms
-- laescan:queued:QUEUE    queued ids by order of arrival
-- laescan:leases          running ids by the end of their lease, ms
-- laescan:due             queued ids that wait for another try, by the ms when it is due
-- laescan:flight:DIGEST   the id that is queued or running for the same ask
-- laescan:idempotent:DIGEST   "id digest-of-the-request"
-- laescan:tally           counters: accepted joined done failed cancelled poisoned requeued
-- laescan:since           ms of the first scan that was accepted since this Redis was empty
-- laescan:changes         channel: ids of rows that changed
--
-- Clocks of machines differ and jump: time is Redis's, everywhere.

local ROW, QUEUED, LEASES, DUE = 'laescan:scan:', 'laescan:queued:', 'laescan:leases', 'laescan:due'

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function ms(number) return string.format('%d', number) end -- Lua would write 1.7e+12

local function get(id, ...) return redis.call('HMGET', ROW .. id, ...) end

local function set(id, ...) redis.call('HSET', ROW .. id, ...) end

local function tell(id) redis.call('PUBLISH', 'laescan:changes', id) end

local function count(what) redis.call('HINCRBY', 'laescan:tally', what, 1) end

-- A Redis without memory left refuses a script's first write if that one may need some, and none that follows. What was
-- accepted goes on in it, and ends: the steps for that begin with a write that needs none.
local function go_on() redis.call('DEL', 'laescan:nothing') end

local function open(state) return state == 'queued' or state == 'running' end

local function mine(id, fence)
  local found = get(id, 'state', 'fence')
  return found[1] == 'running' and found[2] == fence
end

local function take_off_the_lists(id)
  redis.call('ZREM', LEASES, id)
  redis.call('ZREM', DUE, id)
  redis.call('ZREM', QUEUED .. get(id, 'queue')[1], id)
end

local function finish(id, state, outcome, ttl_s)
  take_off_the_lists(id)
  local flight = get(id, 'flight')[1]
  if redis.call('GET', flight) == id then redis.call('DEL', flight) end
  set(id, 'state', state, 'outcome', outcome, 'finished_ms', ms(now_ms()))
  redis.call('HDEL', ROW .. id, 'stage', 'percent')
  redis.call('EXPIRE', ROW .. id, ttl_s)
  count(state)
  tell(id)
end

local step = {}

-- {'known' | 'conflict' | 'joined' | 'promoted' | 'new', id}; idempotent = '' when there is no such key
function step.accept(id, tenant, source, request, queue, flight, idempotent, digest, kept_s)
  local function keep(which)
    if idempotent ~= '' then redis.call('SET', idempotent, which .. ' ' .. digest, 'EX', kept_s) end
  end
  local seen = idempotent ~= '' and redis.call('GET', idempotent)
  if seen then
    local first, asked = seen:match('^(%S+) (%S+)$')
    if asked ~= digest then return {'conflict', first} end
    if redis.call('EXISTS', ROW .. first) == 1 then return {'known', first} end
  end
  local running = redis.call('GET', flight)
  local found = running and get(running, 'state', 'queue', 'order')
  local drawn = found and (found[2] == queue or queue == 'bulk') -- as the asker wants it: only interactive scans are
  if found and open(found[1]) and (drawn or found[1] == 'queued') then
    keep(running)
    count('joined')
    if drawn then return {'joined', running} end
    redis.call('ZREM', QUEUED .. found[2], running)
    redis.call('ZADD', QUEUED .. queue, found[3], running)
    set(running, 'queue', queue, 'request', request)
    return {'promoted', running}
  end
  local order = redis.call('INCR', 'laescan:order')
  set(id, 'tenant', tenant, 'source', source, 'request', request, 'queue', queue, 'order', order, 'flight', flight)
  set(id, 'state', 'queued', 'attempt', 0, 'fence', 0, 'created_ms', ms(now_ms()))
  redis.call('ZADD', QUEUED .. queue, order, id)
  redis.call('SET', flight, id)
  keep(id)
  redis.call('SET', 'laescan:since', ms(now_ms()), 'NX')
  count('accepted')
  return {'new', id}
end

-- 1 = cancelled now, 0 = it had ended, -1 = no such scan
function step.cancel(id, tenant, outcome, ttl_s)
  local found = get(id, 'tenant', 'state')
  if found[1] ~= tenant then return -1 end
  if not open(found[2]) then return 0 end
  go_on()
  redis.call('HINCRBY', ROW .. id, 'fence', 1)
  finish(id, 'cancelled', outcome, ttl_s)
  return 1
end

-- 1 = forgotten, 0 = it has not ended, -1 = no such scan
function step.forget(id, tenant)
  local found = get(id, 'tenant', 'state')
  if found[1] ~= tenant then return -1 end
  if open(found[2]) then return 0 end
  redis.call('DEL', ROW .. id)
  return 1
end

-- {fence, attempt, request, ms in the queue}; {} when the row is not queued
function step.start(id, owner, lease_ms)
  local now, found = now_ms(), get(id, 'state', 'request', 'created_ms', 'requeued_ms')
  if found[1] ~= 'queued' then return {} end
  local fence, attempt = redis.call('HINCRBY', ROW .. id, 'fence', 1), redis.call('HINCRBY', ROW .. id, 'attempt', 1)
  take_off_the_lists(id)
  set(id, 'state', 'running', 'owner', owner)
  redis.call('HSETNX', ROW .. id, 'started_ms', ms(now))
  redis.call('ZADD', LEASES, ms(now + lease_ms), id)
  tell(id)
  return {fence, attempt, found[2], now - tonumber(found[4] or found[3])}
end

-- 1, or 0 when the lease is not ours any more: the same for the three that follow
function step.renew(id, fence, lease_ms)
  if not mine(id, fence) then return 0 end
  go_on()
  redis.call('ZADD', LEASES, ms(now_ms() + lease_ms), id)
  return 1
end

function step.progress(id, fence, stage, percent)
  if not mine(id, fence) then return 0 end
  set(id, 'stage', stage, 'percent', percent)
  tell(id)
  return 1
end

-- The fence stays in the row: what was drawn of another attempt is not shown beside this one's outcome.
function step.finish(id, fence, state, outcome, ttl_s)
  if not mine(id, fence) then return 0 end
  finish(id, state, outcome, ttl_s)
  return 1
end

-- Back into its place in the queue: the queue's name, 'later' when it is delayed, '' when the row is not ours.
function step.give_back(id, fence, strike, delay_ms)
  if not mine(id, fence) then return '' end
  go_on()
  if strike == '0' then redis.call('HINCRBY', ROW .. id, 'attempt', -1) end
  redis.call('HINCRBY', ROW .. id, 'fence', 1)
  redis.call('ZREM', LEASES, id)
  redis.call('HDEL', ROW .. id, 'stage', 'percent')
  set(id, 'state', 'queued', 'requeued_ms', ms(now_ms()))
  local found = get(id, 'queue', 'order')
  redis.call('ZADD', QUEUED .. found[1], found[2], id)
  count('requeued')
  tell(id)
  if tonumber(delay_ms) == 0 then return found[1] end
  redis.call('ZADD', DUE, ms(now_ms() + delay_ms), id)
  return 'later'
end

-- No lease ends later than a lease from now: one that seems to was given before the clock was set back.
local function shorten(lease_ms)
  local latest = ms(now_ms() + lease_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '(' .. latest, '+inf')) do
    redis.call('ZADD', LEASES, latest, id)
  end
end

-- {id, fence, ...} of running rows whose lease ended; their fence moves, so that only the caller may write them now
function step.take_expired(limit, lease_ms)
  local out = {}
  go_on()
  shorten(lease_ms)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', ms(now_ms()), 'LIMIT', 0, limit)) do
    if get(id, 'state')[1] == 'running' then
      out[#out + 1] = id
      out[#out + 1] = redis.call('HINCRBY', ROW .. id, 'fence', 1)
      redis.call('ZADD', LEASES, ms(now_ms() + lease_ms), id)
    else
      redis.call('ZREM', LEASES, id)
    end
  end
  return out
end

-- {id, queue, ...} of queued rows whose next try is due, or is so far away that the clock must have been set back
function step.take_due(limit, most_ms)
  local out = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '(' .. ms(now_ms() + most_ms), '+inf')) do
    redis.call('ZADD', DUE, ms(now_ms()), id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', ms(now_ms()), 'LIMIT', 0, limit)) do
    redis.call('ZREM', DUE, id)
    local found = get(id, 'state', 'queue')
    if found[1] == 'queued' then
      out[#out + 1] = id
      out[#out + 1] = found[2]
    end
  end
  return out
end

return step[ARGV[1]](unpack(ARGV, 2))
