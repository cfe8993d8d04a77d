"""A Lua script of Redis's and its keys in, what it answers out, over one connection that is kept for it.

One reason: redis-py lends a connection for each command, looks whether it still lives, packs words in Python and times
sending and reading apart: several times the CPU that the answer itself needs. So for the one command that is asked
thousands of times a second; all others go the usual way.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hiredis import pack_command
from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from redis.asyncio import Redis

PATIENCE_S: Final = 1.0
"""For everything: one's turn, the connection, the answer."""


class Line:
    """Answers like `redis.register_script(script)`; one call after the other, so send many keys at once.

    Raises redis.RedisError or OSError when Redis is away, and connects anew for the next call.
    """

    def __init__(self, redis: "Redis", script: str) -> None:
        pool = redis.connection_pool
        self._connection = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": None})  # PATIENCE_S is
        self._turn = asyncio.Lock()
        self._script = script
        self._name = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[str]) -> list[Any]:
        """What the script answers."""
        words = (len(keys), *keys, *args)
        async with asyncio.timeout(PATIENCE_S), self._turn:
            try:
                return await self._ask("EVALSHA", self._name, *words)
            except NoScriptError:  # a Redis that was started since
                return await self._ask("EVAL", self._script, *words)

    async def aclose(self) -> None:
        """Hang up."""
        await self._connection.disconnect()

    async def _ask(self, *words: object) -> list[Any]:
        packed = pack_command(words)  # type: ignore[arg-type] # its stub says: a tuple of one

        async def once() -> list[Any]:
            await self._connection.send_packed_command(packed, check_health=False)
            found: list[Any] = await self._connection.read_response()
            return found

        return await self._connection.retry.call_with_retry(once, self._cut)

    async def _cut(self, _error: Exception) -> None:
        await self._connection.disconnect(nowait=True)
