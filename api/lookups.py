"""Keys of single lookups in, verdicts out: what is asked while Redis answers is asked of it next, in one round trip.

One reason: a lookup costs Redis 10 us, a round trip costs Python many times that. 32 callers at once make a script call
or two instead of 32.
"""

import asyncio
import time
from collections import defaultdict
from typing import Final

from redis.exceptions import RedisError

from scanner.cache.verdicts import VerdictCache
from scanner.contract import Verdict

FRESH_S: Final = 1.0
"""Who judges is asked so often; it changes with the weights."""
Asked = tuple[str, asyncio.Future[Verdict | None]]
"""A key and who waits for its verdict."""


class Lookups:
    """The single lookups of one process."""

    def __init__(self, cache: VerdictCache) -> None:
        self._cache = cache
        self._waiting: defaultdict[tuple[str, str], list[Asked]] = defaultdict(list)  # by tenant and model
        self._asking: asyncio.Task[None] | None = None
        self._model: tuple[float, str | None] = (0.0, None)

    async def model_id(self) -> str | None:
        """Who judges, as of the last second."""
        until, model_id = self._model
        if until < time.monotonic() or model_id is None:
            self._model = (time.monotonic() + FRESH_S, model_id)  # who comes meanwhile gets the last answer
            model = await self._cache.model()
            model_id = None if model is None else model.model_id
            self._model = (time.monotonic() + FRESH_S, model_id)
        return model_id

    async def find(self, key: str, *, tenant: str, model_id: str) -> Verdict | None:
        """The verdict at a URL or a sha256."""
        found: asyncio.Future[Verdict | None] = asyncio.get_running_loop().create_future()
        self._waiting[tenant, model_id].append((key, found))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_all())
        return await found

    async def _ask_all(self) -> None:
        """One round trip after the other, each for all who wait by then, until nobody does."""
        try:
            while self._waiting:
                tenant, model_id = longest = next(iter(self._waiting))
                await self._ask(self._waiting.pop(longest), tenant, model_id)
        finally:
            self._asking = None

    async def _ask(self, asked: list[Asked], tenant: str, model_id: str) -> None:
        try:
            verdicts = await self._cache.look_up_many([key for key, _ in asked], tenant=tenant, model_id=model_id)
        except (RedisError, OSError) as error:  # handed on to everyone who asked
            for _, found in asked:
                if not found.done():
                    found.set_exception(error)
            return
        for (_, found), verdict in zip(asked, verdicts, strict=True):
            self._cache.counts["miss" if verdict is None else "hit"] += 1
            if not found.done():
                found.set_result(verdict)
