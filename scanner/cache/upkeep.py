"""What is remembered, counted and forgotten: for whoever runs the service, not for a scan.

In: the Redis of the verdicts. Out: how much of what lies there, by model; and less of it.
One reason: a new model leaves its predecessor's verdicts behind, which nobody will ask for again. All is found by SCAN,
a piece at a time, so that the service goes on beside it.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
from redis.asyncio import Redis

from scanner.cache.verdicts import PREFIX, VerdictCache, raw
from scanner.contract import ModelInfo

_STEP: Final = 500
"""Keys in one round trip: values are some kB each."""
_KINDS: Final = {"u": "urls", "p": "pixels", "n:r": "looks of pictures", "f": "failures"}
_KEPT: Final = f"{PREFIX}model".encode()
"""Who judges now: told once by every engine's side, and without it the API has nothing to ask for."""
_OF_A_MODEL: Final = "vkxa"
"""Kinds of keys that name the model that judged."""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What lies there. `verdicts` counts by scope: model_id, then settings that are not the usual ones."""

    model: ModelInfo | None
    verdicts: dict[str, int]
    others: dict[str, int]
    counters: dict[str, int]  # corrupt and full entries met, near hits refused and audited, since the last purge
    memory_bytes: int  # of the whole Redis
    evicted: int  # keys that it dropped for want of room, since it was started


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """When a verdict was made; the verdict behind it is stepped over."""

    stored_s: float


async def inventory(redis: Redis) -> Inventory:
    """Count everything."""
    verdicts, others = Counter[str](), Counter[str]()
    async for key in redis.scan_iter(match=f"{PREFIX}*", count=_STEP):
        kind, scope = _read(key)
        if kind == "v":
            verdicts[scope] += 1
        name = next((name for kind, name in _KINDS.items() if key.startswith(f"{PREFIX}{kind}:".encode())), None)
        if name is not None:
            others[name] += 1
    cache = VerdictCache(redis)
    about = await redis.info()
    return Inventory(
        model=await cache.model(),
        verdicts=dict(verdicts),
        others=dict(others),
        counters=await cache.stats(),
        memory_bytes=int(about.get("used_memory", 0)),
        evicted=int(about.get("evicted_keys", 0)),
    )


async def purge(redis: Redis) -> int:
    """Forget everything, near tier included; out: how many verdicts went."""
    return await _unlink(redis, f"{PREFIX}*", lambda _scope: True)


async def purge_models(redis: Redis, is_meant: Callable[[str], bool]) -> int:
    """Forget what the models that are meant, by `model_id`, have judged; out: how many verdicts went."""
    gone = 0
    for kind in _OF_A_MODEL:
        gone += await _unlink(redis, f"{PREFIX}{kind}:*", lambda scope: is_meant(model_of(scope)))
    counters = [name for name in await VerdictCache(redis).stats() if name.startswith("remembered:")]
    if meant := [name for name in counters if is_meant(model_of(name.partition(":")[2]))]:
        await redis.hdel(f"{PREFIX}stats", *meant)
    return gone


async def purge_older(redis: Redis, age_s: float) -> int:
    """Forget verdicts that were made longer ago; what cannot be read goes, too. Out: how many went."""
    oldest_s, gone = time.time() - age_s, 0
    async for keys in pieces(redis, f"{PREFIX}v:*"):
        values = await redis.mget(keys)
        old = [key for key, value in zip(keys, values, strict=True) if value and not _is_since(value, oldest_s)]
        gone += await redis.unlink(*old) if old else 0
    return gone


def model_of(scope: str) -> str:
    """The `model_id` in a scope."""
    return scope.partition(",")[0]


async def pieces(redis: Redis, pattern: str) -> AsyncIterator[list[bytes]]:
    """Keys like this, some hundred at a time; one may come twice, as with SCAN."""
    piece: list[bytes] = []
    async for key in redis.scan_iter(match=pattern, count=_STEP):
        piece.append(key)
        if len(piece) >= _STEP:
            yield piece
            piece = []
    if piece:
        yield piece


async def _unlink(redis: Redis, pattern: str, is_meant: Callable[[str], bool]) -> int:
    """Drop keys by their scope; out: how many of them were verdicts."""
    gone = 0
    async for keys in pieces(redis, pattern):
        meant = [key for key in keys if key != _KEPT and is_meant(_read(key)[1])]
        if meant:
            await redis.unlink(*meant)
        gone += sum(_read(key)[0] == "v" for key in meant)
    return gone


def _read(key: bytes) -> tuple[str, str]:
    """A key's kind and scope, e.g. ("v", "a1b2,max_frames=32"); the scope is empty where a key has none."""
    kind, _, rest = key.decode("utf-8", "replace").removeprefix(PREFIX).partition(":")
    return kind, rest.partition(":")[0] if kind in _OF_A_MODEL else ""


def _is_since(value: bytes | str, oldest_s: float) -> bool:
    try:
        return _STORED.decode(raw(value)).stored_s >= oldest_s
    except (ValueError, RecursionError):
        return False


_STORED = msgspec.msgpack.Decoder(_Stored)
