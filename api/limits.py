"""A caller's key and a rate in, leave to go on or the time to wait out: GCRA, as one Lua script on Redis's own clock.

GCRA (ITU-T I.371) keeps one number per key, the "theoretical arrival time" (TAT), instead of a bucket and its refill:
a request is let through while the TAT is less than one burst ahead of now.
One reason: every API process shares the same count, and no race between two of them lets more through.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from api.errors import TooManyRequests

if TYPE_CHECKING:
    from redis.asyncio import Redis


WINDOW_S: Final = 60
"""Rates are per minute; a minute's worth may come at once."""

# KEYS: the TAT. ARGV: us between two requests in the long run, requests that may come at once.
# Answers: passed?, requests left, us until one would pass, us until the full burst is back.
GCRA: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local next_tat = tat + interval
local wait = next_tat - burst * interval - now
if wait > 0 then
  return {0, 0, wait, tat - now}
end
redis.call('SET', KEYS[1], string.format('%.0f', next_tat), 'PX', math.ceil((next_tat - now) / 1000) + 1)
return {1, math.floor(-wait / interval), 0, next_tat - now}
"""


MOST_HELD: Final = 64
"""Answers that may be held open for one token by one process: each reads its row again and again."""

HELD_S: Final = 5.0
"""What Retry-After advises beyond that: a few scans later."""


@dataclass(frozen=True)
class Leave:
    """What the limiter says of one request; `wait_s` is 0 when it passed."""

    passed: bool
    limit: int
    left: int
    wait_s: float
    reset_s: float

    def headers(self, policy: str) -> dict[str, str]:
        """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {
            "RateLimit-Policy": f'"{policy}";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"{policy}";r={self.left};t={math.ceil(self.reset_s)}',
        }


class Limiter:
    """Counts requests in Redis."""

    def __init__(self, redis: "Redis") -> None:
        self._spend = redis.register_script(GCRA)

    async def spend(self, who: str, *, policy: str, per_min: int) -> Leave:
        """Count one request of `who`; raises redis.RedisError when Redis is away, so that nothing passes uncounted."""
        interval_us = WINDOW_S * 1_000_000 // per_min
        answer = await self._spend(keys=[f"laescan:limit:{policy}:{who}"], args=[interval_us, per_min])
        passed, left, wait_us, reset_us = (int(number) for number in answer)
        return Leave(bool(passed), per_min, left, wait_us / 1e6, reset_us / 1e6)


class Held:
    """The answers that are held open: what the limiter cannot see, since each is one request."""

    def __init__(self) -> None:
        self._open: defaultdict[str, dict[object, web.Request]] = defaultdict(dict)  # by token

    @contextlib.contextmanager
    def one(self, token: str, request: web.Request) -> Iterator[None]:
        """Hold one for this token; raises TooManyRequests. Who hung up is not counted, though its end comes later."""
        if sum(other.transport is not None for other in self._open[token].values()) >= MOST_HELD:
            msg = f"{MOST_HELD} scans are watched or waited for with this token; end some, or ask without `wait`"
            raise TooManyRequests(msg, retry_after_s=HELD_S)
        mark = object()
        self._open[token][mark] = request
        try:
            yield
        finally:
            del self._open[token][mark]
            if not self._open[token]:
                del self._open[token]
