"""A Redis and prefixes of keys in; who asked is told of every key that was written, expired or evicted since.

One reason: what Redis was asked can be kept here for as long as Redis itself has not said that it changed, whichever
process changed it. Redis calls this broadcasting tracking (CLIENT TRACKING ... BCAST, 6.0); the pushes are RESP3's.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from redis.exceptions import RedisError

if TYPE_CHECKING:
    from redis._parsers.base import AsyncPushNotificationsParser
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

log = logging.getLogger(__name__)

SILENCE_S: Final = 1.0
"""After so long Redis is asked whether it is still there, and after as long again without an answer it is not."""
AGAIN_S: Final = 0.5


class Changes:
    """`told` gets the keys; None when any may have changed, which is the first that it hears of each connection."""

    def __init__(self, redis: "Redis", prefixes: Sequence[str], told: Callable[[Sequence[bytes] | None], None]) -> None:
        self._pool = redis.connection_pool
        self._prefixes = [word for prefix in prefixes for word in ("PREFIX", prefix)]
        self._told = told
        self.is_heard = False
        """Whether every change until now was told; false while Redis is away."""

    async def listen(self) -> None:
        """Until it is cancelled, which redis swallows when it comes while it connects: so it is asked for, too."""
        while not _is_cancelled():
            connection = self._pool.connection_class(
                **{**self._pool.connection_kwargs, "protocol": 3, "socket_timeout": None}
            )
            try:
                await self._hear(connection)
            except (RedisError, OSError) as error:
                log.info("Redis tells no changes for now: %s", error)
            finally:
                self.is_heard = False
                await connection.disconnect(nowait=True)
            await asyncio.sleep(AGAIN_S)

    async def _hear(self, connection: "AbstractConnection") -> None:
        async with asyncio.timeout(SILENCE_S):
            await connection.connect()  # type: ignore[no-untyped-call]
            parser = cast("AsyncPushNotificationsParser", connection._parser)  # noqa: SLF001 - there is no other way in
            parser.set_invalidation_push_handler(self._pass_on)  # type: ignore[no-untyped-call]
            await connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *self._prefixes)
            while await connection.read_response(push_request=True) is None:
                pass  # a change that was quicker than the OK
        self._told(None)
        self.is_heard = True
        while not _is_cancelled():
            await self._hear_until_silence(connection)
            await connection.send_command("PING")
            async with asyncio.timeout(SILENCE_S):
                while await connection.read_response(push_request=True) is None:
                    pass

    async def _hear_until_silence(self, connection: "AbstractConnection") -> None:
        """Ends when nothing was pushed for SILENCE_S."""
        self._passed = True
        while self._passed:
            self._passed = False
            await connection.read_response(timeout=SILENCE_S, push_request=True)

    async def _pass_on(self, message: list[Any]) -> None:
        self._passed = True
        self._told(message[1])  # None after a FLUSHALL


def _is_cancelled() -> bool:
    ours = asyncio.current_task()
    return ours is not None and ours.cancelling() > 0
