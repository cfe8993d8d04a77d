"""Why a URL led to no verdict, remembered for a short while: asking again at once would fail again at once.

In: a failed scan's failure. Out: the same, with how long it still stands; or None.
One reason: a dead link in a busy page is asked for by everyone who sees it, and each ask would be a scan. What passes
with time stands for a minute, what only its owner can change for ten, and what was our own fault never: that is not the
URL's. Under the tenant's own key, like URLs; losing one costs a scan. Light: the API answers from it.

    m1:f:{tenant, url}    the failure, packed    until it is asked for anew
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from scanner import errors
from scanner.cache.gist import decoded
from scanner.cache.urls import url_digest
from scanner.cache.verdicts import PREFIX
from scanner.contract import Failure

_SOON_S, _LATER_S = 60, 600  # hashcache.md §5.2: 5xx and timeouts; 404 and what is no media
_SOON: Final = (
    errors.Unreachable,
    errors.SourceFailed,
    errors.TimedOut,
    errors.RateLimited,
    errors.BlockedAddress,  # by ten minutes its name may lead elsewhere, or the operator have opened that network
    errors.DecoderFailed,  # mostly a medium that does it again, sometimes a machine that was busy
)
_LATER: Final = (
    errors.Gone,
    errors.Forbidden,
    errors.OptedOut,
    errors.TooManyRedirects,
    errors.TooLarge,
    errors.LiveStream,
    errors.NoMedia,
    errors.Empty,
    errors.UnsupportedMedia,
    errors.BrokenMedia,
    errors.TooManyPixels,
    errors.TooLong,
    errors.NoVideo,
)
LIFE_S: Final[Mapping[str, int]] = {error.code: _SOON_S for error in _SOON} | {error.code: _LATER_S for error in _LATER}
"""Seconds by code; what is not in here is not remembered."""


class KnownFailure(NamedTuple):
    """A failure and for how many seconds it still answers."""

    failure: Failure
    left_s: float


class Failures:
    """What failed lately; every method raises redis.RedisError when Redis is away, and only then."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def known(self, url: str, *, tenant: str) -> KnownFailure | None:
        """Why this tenant's last scan of the URL gave no verdict, if that was just now."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(_key(url, tenant))
            pipe.pttl(_key(url, tenant))
            value, left_ms = await pipe.execute(raise_on_error=False)
        try:
            return KnownFailure(decoded(_FAILURE, value), max(0, left_ms) / 1000) if isinstance(value, bytes) else None
        except ValueError:  # a corrupt entry is a miss; the next scan mends it
            return None

    async def remember(self, failure: Failure, *, url: str, tenant: str) -> None:
        """Keep it for as long as its code tells, or as its server asked us to stay away."""
        life_s = _life_s(failure)
        if life_s:
            await self._redis.set(_key(url, tenant), msgspec.msgpack.encode(failure), ex=life_s)

    async def forget(self, url: str, *, tenant: str) -> None:
        """It led to a verdict now."""
        await self._redis.delete(_key(url, tenant))


def _life_s(failure: Failure) -> int:
    life_s = LIFE_S.get(failure.code, 0)
    return min(_LATER_S, max(life_s, int(failure.retry_after_s or 0))) if life_s else 0


def _key(url: str, tenant: str) -> str:
    return f"{PREFIX}f:{url_digest(url, tenant)}"


_FAILURE = msgspec.msgpack.Decoder(Failure)
