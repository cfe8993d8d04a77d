"""Who works now: the names of the workers that said in time that they live.

In: the Redis of the queue. Out: names, of all machines or of one.
One reason: a probe (`laescan worker --status`), /metrics and its alerts must mean the same by "no worker".
A worker is on the roll from when its engine has answered until it stops, or says nothing for about a minute.
"""

from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

_ALL: Final = (
    "rq:workers"  # rq's set of the keys of workers; the key of one that died ends, its name here stays a while
)
_PREFIX: Final = "rq:worker:"


async def living(client: Redis, *, host: str | None = None) -> list[str]:
    """Names in order, `HOST-PID-...` and `shards-HOST-PID-...`; raises RedisError."""
    keys = sorted(map(_text, await client.smembers(_ALL)))
    async with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.exists(key)
        there = await pipe.execute() if keys else []
    names = [key.removeprefix(_PREFIX) for key, alive in zip(keys, there, strict=True) if alive]
    return [name for name in names if host is None or f"-{host}-" in f"-{name}"]


def _text(key: bytes | str) -> str:
    return key if isinstance(key, str) else key.decode()


async def living_at(url: str, *, host: str | None = None) -> list[str]:
    """The same with a connection of its own; nobody where no Redis answers."""
    async with Redis.from_url(url) as client:
        try:
            return await living(client, host=host)
        except (RedisError, OSError):
            return []
