"""A perceptual hash in, the verdicts on the tenant's pictures with a hash like it out, the nearest first.

One reason: a hash only nominates. 40 % of local forgeries have the very hash of the untouched picture, so these
verdicts are marked `near` with their distance, and whoever asks must compare the pictures, as
`scanner.cache.near` does.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from scanner.cache.bands import bands_of, root_key
from scanner.cache.verdicts import VerdictCache
from scanner.contract import Verdict

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST: Final = 16
"""Verdicts in one answer."""


async def alike(redis: "Redis", cache: VerdictCache, phash: str, *, tenant: str, model_id: str) -> list[Verdict]:
    """Verdicts on pictures of this tenant whose hash differs from these 64 hex digits in at most 15 bits."""
    distances, _corrupt = await bands_of(redis, tenant).near(int(phash, 16))
    nearest = sorted(distances, key=distances.__getitem__)[:MOST]
    async with redis.pipeline(transaction=False) as pipe:
        for code in nearest:
            pipe.hkeys(root_key(code, tenant))
        files = await pipe.execute() if nearest else []
    digests = {sha256.decode(): distances[code] for code, found in zip(nearest, files, strict=True) for sha256 in found}
    verdicts = await cache.verdicts(list(digests), model_id=model_id)
    return [
        msgspec.structs.replace(
            verdict, cache=msgspec.structs.replace(verdict.cache, kind="near", distance=digests[sha256], by=None)
        )
        for sha256, verdict in list(verdicts.items())[:MOST]
    ]
