"""Keys of single lookups in, verdicts out: what is asked in the same moment goes to Redis in one round trip.

One reason: a lookup costs Redis 10 us and Python 100 us, nearly all of it spent on the round trip. 32 callers at once
make one script call instead of 32, and what was answered within the last second is answered again as it is.
"""

import asyncio
import time
from collections import OrderedDict
from typing import Final

from redis.exceptions import RedisError

from scanner.cache.verdicts import VerdictCache
from scanner.contract import Verdict

FRESH_S: Final = 1.0
"""A verdict is repeated for so long; that nothing is known never is."""
MOST_ANSWERS: Final = 2_048
"""Answers kept: 2 kB each as a rule, 4 MB."""


class Lookups:
    """The single lookups of one process."""

    def __init__(self, cache: VerdictCache) -> None:
        self._cache = cache
        self._answers: OrderedDict[tuple[str, str], tuple[float, bytes]] = OrderedDict()
        self._waiting: dict[tuple[str, str], list[tuple[str, asyncio.Future[Verdict | None]]]] = {}
        self._model: tuple[float, str | None] = (0.0, None)
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, tenant: str, query: str) -> bytes | None:
        """What this tenant was told within the last second when it asked the very same."""
        kept = self._answers.get((tenant, query))
        return kept[1] if kept is not None and kept[0] > time.monotonic() else None

    def keep(self, tenant: str, query: str, answer: bytes) -> None:
        """Remember an answer for a second."""
        self._answers[tenant, query] = (time.monotonic() + FRESH_S, answer)
        self._answers.move_to_end((tenant, query))
        if len(self._answers) > MOST_ANSWERS:
            self._answers.popitem(last=False)

    async def model_id(self) -> str | None:
        """Who judges, as of the last second."""
        until, model_id = self._model
        if until < time.monotonic() or model_id is None:
            model = await self._cache.model()
            model_id = None if model is None else model.model_id
            self._model = (time.monotonic() + FRESH_S, model_id)
        return model_id

    async def find(self, key: str, *, tenant: str, model_id: str) -> Verdict | None:
        """The verdict at a URL or a sha256, asked together with all that is asked in this turn of the event loop."""
        loop = asyncio.get_running_loop()
        found: asyncio.Future[Verdict | None] = loop.create_future()
        waiting = self._waiting.get((tenant, model_id))
        if waiting is None:
            waiting = self._waiting[tenant, model_id] = []
            loop.call_soon(self._send, tenant, model_id)
        waiting.append((key, found))
        return await found

    def _send(self, tenant: str, model_id: str) -> None:
        task = asyncio.create_task(self._ask(tenant, model_id, self._waiting.pop((tenant, model_id))))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, tenant: str, model_id: str, asked: list[tuple[str, asyncio.Future[Verdict | None]]]) -> None:
        try:
            found = await self._cache.look_up_many([key for key, _ in asked], tenant=tenant, model_id=model_id)
        except (RedisError, OSError) as error:  # handed on to everyone who asked
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), verdict in zip(asked, found, strict=True):
            self._cache.counts["miss" if verdict is None else "hit"] += 1
            if not future.done():
                future.set_result(verdict)
