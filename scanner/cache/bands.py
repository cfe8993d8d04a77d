"""Which remembered perceptual hashes lie within 15 bits of a given one: all of them, in one round trip to Redis.

In: a 256-bit hash. Out: those near it, with their distances.
One reason: exact, unlike the approximate indices (an HNSW found 68 of 131, hashcache.md §2). Two hashes that differ in
at most 15 bits agree in at least one of 16 bands of 16 bits (pigeonhole), so the 16 bands' buckets hold them all.
Light, so that the API can answer what looks alike.
"""

from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from secrets import token_bytes

from redis.asyncio import Redis

from scanner.cache.buckets import Buckets
from scanner.cache.urls import tenant_digest
from scanner.cache.verdicts import PREFIX, VERDICT_TTL_S

RADIUS = 15
HASH_BITS, BANDS = 256, 16
HASH_BYTES = HASH_BITS // 8
_BAND_BYTES = HASH_BYTES // BANDS


class Bands:
    """The hashes of pictures that were scanned; `prefix` begins every key, a hash lives for `life_s` to twice that."""

    def __init__(self, redis: Redis, prefix: str, *, life_s: int) -> None:
        self._redis = redis
        self._seed_key = f"{prefix}seed"
        self._buckets = Buckets(redis, f"{prefix}b:".encode(), size_bytes=HASH_BYTES, life_s=life_s)

    async def add(self, perceptual_hash: int) -> int:
        """Keep a hash; out: how many of its bands had no room, in which case it may be missed, never mistaken."""
        record = perceptual_hash.to_bytes(HASH_BYTES)
        return await self._buckets.add((band, record) for band in await self._bands(perceptual_hash))

    async def near(self, perceptual_hash: int, *, radius: int = RADIUS) -> tuple[dict[int, int], int]:
        """Every kept hash within `radius` bits (at most 15) and its distance; and how many buckets were corrupt."""
        if radius > RADIUS:
            msg = f"the bands find all within {RADIUS} bits, not within {radius}"
            raise ValueError(msg)
        records, corrupt = await self._buckets.read(await self._bands(perceptual_hash))
        codes = map(int.from_bytes, records)
        distances = {code: distance for code in codes if (distance := (code ^ perceptual_hash).bit_count()) <= radius}
        return distances, corrupt

    async def _bands(self, perceptual_hash: int) -> list[bytes]:
        """The names of its 16 buckets: band number and value, after the shuffle."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(self._seed_key, token_bytes(16), nx=True)
            pipe.get(self._seed_key)
            _, seed = await pipe.execute()
        bits = "".join(itemgetter(*_order(seed))(f"{perceptual_hash:0256b}"))
        mixed = int(bits, 2).to_bytes(HASH_BYTES)
        return [bytes((band,)) + mixed[band * _BAND_BYTES :][:_BAND_BYTES] for band in range(BANDS)]


def bands_of(redis: Redis, tenant: str) -> Bands:
    """The hashes of one tenant's pictures."""
    return Bands(redis, f"{PREFIX}n:{tenant_digest(tenant)}:", life_s=VERDICT_TTL_S)


def root_key(perceptual_hash: int, tenant: str) -> str:
    """Where `near` keeps what the tenant's pictures with this hash look like, by their files' sha256."""
    return f"{PREFIX}n:r:{tenant_digest(tenant)}:{perceptual_hash:064x}"


@lru_cache(64)  # tenants
def _order(seed: bytes) -> list[int]:
    """An order of the bits that is one tenant's own; asked for each time, since a purge or an eviction changes it.

    Neighbouring bits of a hash go together, so bands of neighbours are uneven (1.29 times the candidates of even ones,
    1.01 after a shuffle; hashcache.md §2); and who does not know the order cannot fill the bands of a certain picture.
    """
    return sorted(range(HASH_BITS), key=lambda bit: sha256(seed + bytes((bit,))).digest())
