"""Fixed-size records under short keys in Redis, for lookups that must be exact: nothing is forgotten before its time.

In: (bucket, record) pairs. Out: all records of the buckets asked for, in one round trip.
One reason: Redis can expire a key but not a part of one, so records live in generations: this period's key and the
last one's are read, and an entry stays readable for one whole period after it was written, two at most.
"""

import time
from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

CAP = 4_096
"""Most records in a bucket; a full one loses what comes later (a miss, so a scan), never what it has."""

_ADD = """
local size, full = tonumber(ARGV[1]), 0
for i, key in ipairs(KEYS) do
    local record = ARGV[i + 3]
    local bucket = redis.pcall('GET', key)
    if type(bucket) ~= 'string' or #bucket % size ~= 0 then bucket = '' end
    local at = string.find(bucket, record, 1, true)
    while at and (at - 1) % size ~= 0 do at = string.find(bucket, record, at + 1, true) end
    if not at and #bucket >= size * tonumber(ARGV[2]) then
        full = full + 1
    elseif not at then
        redis.call('SET', key, bucket .. record, 'EXAT', ARGV[3])
    end
end
return full
"""
# A whole SET and no APPEND: APPEND doubles the room of what it grows, and a bucket's few kB are copied in no time.


class Buckets:
    """Records of `size_bytes` each, kept for `life_s` to twice that; `prefix` begins every key."""

    def __init__(self, redis: Redis, prefix: bytes, *, size_bytes: int, life_s: int, cap: int = CAP) -> None:
        self._redis = redis
        self._add = redis.register_script(_ADD)
        self._prefix = prefix
        self._size_bytes = size_bytes
        self._life_s = life_s
        self._cap = cap

    async def add(self, records: Iterable[tuple[bytes, bytes]]) -> int:
        """Write (bucket, record) pairs, each once; out: how many found their bucket full and were left out."""
        now = self._generation()
        pairs = [(self._key(now, bucket), record) for bucket, record in records]
        expire_at = (now + 2) * self._life_s
        keys, values = [key for key, _ in pairs], [record for _, record in pairs]
        return int(await self._add(keys=keys, args=[self._size_bytes, self._cap, expire_at, *values]))

    async def read(self, buckets: Sequence[bytes]) -> tuple[set[bytes], int]:
        """Every record in these buckets, and how many of their keys hold something that is no list of records."""
        now, size = self._generation(), self._size_bytes
        keys = [self._key(generation, bucket) for generation in (now, now - 1) for bucket in buckets]
        found, corrupt = set[bytes](), 0
        for value in await self._redis.mget(keys):
            if not isinstance(value, bytes):  # None: no such key
                continue
            if len(value) % size:
                corrupt += 1
                continue
            found.update(value[at : at + size] for at in range(0, len(value), size))
        return found, corrupt

    def _generation(self) -> int:
        return int(time.time()) // self._life_s

    def _key(self, generation: int, bucket: bytes) -> bytes:
        return b"%b%x:%b" % (self._prefix, generation, bucket)
