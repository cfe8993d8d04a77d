"""One scan at a time of the same bytes, and of the same pixels: who comes second waits for the first and recalls.

In: a Memory. Out: a Memory that waits before it says that it knows nothing.
One reason: when a picture goes round, hundreds of scans of it are accepted before the first one has ended; the ledger
joins those of one tenant and URL, this joins the others.

A flight is a key in Redis that its scan renews and deletes. One whose process died expires, and another takes it.
Bytes are asked for before pixels, always, so no two scans wait for each other.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Final

import redis.asyncio
from redis.exceptions import RedisError

from scanner.memory import Memory

if TYPE_CHECKING:
    from scanner.cache.validators import Validators
    from scanner.contract import Verdict
    from scanner.decoding.decode import Decoded
    from scanner.fetching.fetch import Fetched

log = logging.getLogger(__name__)

FLIGHT_TTL_S: Final = 15.0
"""After so long without a renewal the scan that holds it is dead."""
_RENEW_S = 5.0
_POLL_S = 0.1
_LONGEST_WAIT_S = 120.0  # then it is scanned twice: later than that nobody wants to hear of saved work

_PREFIX = "laescan:flight:"
_LAND = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
_RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"


class SingleFlight:
    """A Memory that serves one scan at a time, which `aboard` brackets, with the memory of that scan's tenant."""

    def __init__(self, client: redis.asyncio.Redis, *, model_id: str) -> None:
        self._redis, self._model_id = client, model_id
        self._land, self._renew = client.register_script(_LAND), client.register_script(_RENEW)
        self._token = ""
        self._held: list[str] = []

    @contextlib.asynccontextmanager
    async def aboard(self, token: str, memory: Memory) -> AsyncIterator[None]:
        """One scan, under a name that no other attempt has; what it holds is let go at the end, however it ended."""
        self._token, self._memory, self._held = token, memory, []
        renewing = asyncio.create_task(self._keep())
        try:
            yield
        finally:
            renewing.cancel()
            for key in self._held:
                with contextlib.suppress(RedisError):  # it expires
                    await self._land(keys=[key], args=[self._token])

    async def expected(self, source: str) -> "tuple[Validators, Verdict] | None":
        """See Memory."""
        return await self._memory.expected(source)

    async def confirm(self, source: str) -> None:
        """See Memory."""
        await self._memory.confirm(source)

    async def recall(self, fetched: "Fetched") -> "Verdict | None":
        """See Memory; waits while another scan has these bytes."""
        return await self._alone("bytes", fetched.sha256, lambda: self._memory.recall(fetched))

    async def recall_decoded(self, fetched: "Fetched", decoded: "Decoded") -> "Verdict | None":
        """See Memory; waits while another scan has these pixels."""
        from scanner.cache.fingerprint import pixel_digest  # noqa: PLC0415 - numpy and imagehash, where they are needed

        digest = await asyncio.to_thread(pixel_digest, decoded)
        return await self._alone("pixels", digest, lambda: self._memory.recall_decoded(fetched, decoded))

    async def remember(self, fetched: "Fetched", decoded: "Decoded", verdict: "Verdict") -> None:
        """See Memory."""
        await self._memory.remember(fetched, decoded, verdict)

    async def _alone(self, kind: str, digest: str, ask: "Callable[[], Awaitable[Verdict | None]]") -> "Verdict | None":
        key = f"{_PREFIX}{kind}:{self._model_id}:{digest}"
        deadline = time.monotonic() + _LONGEST_WAIT_S
        with contextlib.suppress(RedisError):  # a help, never a condition
            while not await self._redis.set(key, self._token, nx=True, px=int(FLIGHT_TTL_S * 1000)):
                if time.monotonic() > deadline:
                    log.warning("another scan of the same %s takes long; not waiting for it", kind)
                    return await ask()
                await asyncio.sleep(_POLL_S)
            self._held.append(key)
        return await ask()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            for key in self._held:
                with contextlib.suppress(RedisError):
                    await self._renew(keys=[key], args=[self._token, int(FLIGHT_TTL_S * 1000)])
