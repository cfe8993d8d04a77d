"""Near lookup in a growing index, nothing missed, what a million entries weigh: `python tests/bench_cache.py [N...]`.

A real Redis on a Unix socket; sizes 10,000, 100,000 and 1,000,000 hashes by default, half of them even, half in
clusters as crops of one photograph are. Half of the queries have planted neighbours at every distance up to 20 bits.
All sizes lie in one server and are asked in turn, beside a GET of one key: the machine may be busy with other things.
"""

import asyncio
import math
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import redis.asyncio
import verdicts
from PIL import Image
from redis_server import redis_in

from scanner.cache import bands as bands_module
from scanner.cache.bands import BANDS, HASH_BITS, HASH_BYTES, RADIUS, Bands, root_key
from scanner.cache.fingerprint import Look
from scanner.cache.near import NearTier
from scanner.cache.verdicts import VerdictCache

SIZES = (10_000, 100_000, 1_000_000)
QUERIES, PLANTED_UP_TO = 400, 20
WEIGHED = 2_000
AT_ONCE = 2_000
WRITE = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EXAT', ARGV[1]) end"
LIFE_S = 30 * 86_400


def hashes(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 32) uint8: half even, half within some 30 bits of one of count / 200 centres."""
    codes = rng.integers(0, 256, (count, HASH_BYTES), np.uint8)
    half = count // 2
    centres = rng.integers(0, 256, (max(1, count // 200), HASH_BYTES), np.uint8)
    flips = np.packbits(rng.random((half, HASH_BITS), np.float32) < 0.12, axis=1)
    codes[:half] = centres[rng.integers(0, len(centres), half)] ^ flips
    return codes


def planted(codes: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Queries: every second one is a kept hash with 0 to 20 bits turned, the others are new."""
    queries = []
    for number in range(QUERIES):
        code = int.from_bytes(codes[rng.integers(len(codes))].tobytes() if number % 2 else rng.bytes(HASH_BYTES))
        for bit in rng.choice(HASH_BITS, number // 2 % (PLANTED_UP_TO + 1), replace=False):
            code ^= 1 << int(bit)
        queries.append(code)
    return queries


def brute_force(codes: np.ndarray, query: int) -> set[int]:
    """Every kept hash within the radius, by looking at all of them."""
    words = codes.view(np.uint64)
    asked = np.frombuffer(query.to_bytes(HASH_BYTES), np.uint64)
    near = np.bitwise_count(words ^ asked).sum(1, dtype=np.int64) <= RADIUS
    return {int.from_bytes(code.tobytes()) for code in codes[near]}


async def fill(bands: Bands, codes: np.ndarray, client: redis.asyncio.Redis) -> None:
    """Write whole buckets as `Bands.add` would leave them; `check_fill` holds the two together."""
    await bands.near(0)  # makes the seed
    write = client.register_script(WRITE)
    order = bands_module._order(await client.get(bands._seed_key))
    generation = bands._buckets._generation()
    parts = (np.unpackbits(part, axis=1)[:, order] for part in np.array_split(codes, 100))
    mixed = np.concatenate([np.ascontiguousarray(np.packbits(part, axis=1)) for part in parts])
    values = mixed.view(">u2")  # (N, 16): the value of each band of each hash
    for band in range(BANDS):
        ranks = np.argsort(values[:, band], kind="stable")
        found, starts = np.unique(values[ranks, band], return_index=True)
        names = [bands._buckets._key(generation, bytes((band,)) + int(value).to_bytes(2)) for value in found]
        whole = [members.tobytes() for members in np.split(codes[ranks], starts[1:])]
        for at in range(0, len(names), AT_ONCE):
            part = slice(at, at + AT_ONCE)
            await write(keys=names[part], args=[(generation + 2) * LIFE_S, *whole[part]])


async def check_fill(client: redis.asyncio.Redis, rng: np.random.Generator) -> None:
    """The quick way to fill an index must leave the very keys that the slow, real one leaves."""
    codes = hashes(300, rng)

    async def dump() -> dict[bytes, list[bytes]]:
        keys = [key async for key in client.scan_iter(match="one:b:*")]
        return {
            key: sorted(value[at : at + HASH_BYTES] for at in range(0, len(value), HASH_BYTES))
            for key, value in zip(keys, await client.mget(keys), strict=True)
        }

    bands = Bands(client, "one:", life_s=LIFE_S)
    for code in codes:
        await bands.add(int.from_bytes(code.tobytes()))
    slow = await dump()
    await client.delete(*slow)
    await fill(bands, codes, client)
    assert await dump() == slow
    await client.flushall()


async def timed(work: Callable[[int], Awaitable[object]], query: int) -> tuple[float, float]:
    """Wall and own CPU time in ms."""
    begun, spent = time.perf_counter(), time.process_time()
    await work(query)
    return (time.perf_counter() - begun) * 1e3, (time.process_time() - spent) * 1e3


async def used_bytes(client: redis.asyncio.Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


@dataclass(frozen=True)
class Index:
    """A filled index and what is asked of it."""

    bands: Bands
    codes: np.ndarray
    queries: list[int]
    bytes_each: float


async def filled(client: redis.asyncio.Redis, count: int) -> Index:
    rng, empty = np.random.default_rng(count), await used_bytes(client)
    bands, codes = Bands(client, f"{count}:", life_s=LIFE_S), hashes(count, rng)
    await fill(bands, codes, client)
    return Index(bands, codes, planted(codes, rng), (await used_bytes(client) - empty) / count)


async def missed(index: Index) -> tuple[int, int, int]:
    """Neighbours that there are, that were missed, and that are none, over all queries."""
    there = lost = wrong = 0
    for query in index.queries:
        found, corrupt = await index.bands.near(query)
        expected = brute_force(index.codes, query)
        there, lost = there + len(expected), lost + len(expected - found.keys())
        wrong += len(found.keys() - expected) + corrupt
    return there, lost, wrong


async def measure_indices(client: redis.asyncio.Redis, sizes: list[int]) -> None:
    """Every size in turn, query by query, beside a GET: whatever else the machine does, it does to all of them."""
    indices = [await filled(client, size) for size in sizes]
    await client.set("one", b"x" * 1_000)
    times: dict[object, list[tuple[float, float]]] = {name: [] for name in ("get", *range(len(sizes)))}
    adds: list[list[tuple[float, float]]] = [[] for _ in sizes]
    for queries in zip(*(index.queries for index in indices), strict=True):
        times["get"].append(await timed(lambda _query: client.get("one"), 0))
        for number, (index, query) in enumerate(zip(indices, queries, strict=True)):
            times[number].append(await timed(index.bands.near, query))
    for _ in range(100):
        for index, spent in zip(indices, adds, strict=True):
            spent.append(await timed(index.bands.add, random.getrandbits(HASH_BITS)))
    print("    hashes  near ms      p99   CPU ms   GET ms   add ms  bytes/hash    within  missed  wrong")
    plain = statistics.median(wall for wall, _ in times["get"])
    for number, (size, index) in enumerate(zip(sizes, indices, strict=True)):
        walls, cpus = zip(*times[number], strict=True)
        print(
            f"{size:10,}{statistics.median(walls):9.2f}{np.percentile(walls, 99):9.2f}{statistics.median(cpus):9.2f}"
            f"{plain:9.2f}{statistics.median(wall for wall, _ in adds[number]):9.2f}{index.bytes_each:12.0f}"
            "{:10}{:8}{:7}".format(*await missed(index)),
            flush=True,
        )
    if len(sizes) > 1:
        for name, at in (("time", 0), ("CPU time of the client", 1)):
            first, last = (statistics.median(spent[at] for spent in times[number]) for number in (0, len(sizes) - 1))
            exponent = math.log(last / first) / math.log(sizes[-1] / sizes[0])
            print(f"{name} ~ N^{exponent:.3f} from {sizes[0]:,} to {sizes[-1]:,}", flush=True)


async def measure_verdicts(client: redis.asyncio.Redis) -> None:
    """What a remembered verdict of one face weighs, and how many keys a second a batch lookup answers."""
    await client.flushall()
    cache, before = VerdictCache(client), await used_bytes(client)
    one = verdicts.still(verdicts.scored(verdicts.HIGH))
    keys = [f"{random.getrandbits(256):064x}" for _ in range(WEIGHED)]
    for key in keys:
        verdict = msgspec.structs.replace(one, media=msgspec.structs.replace(one.media, sha256=key))
        await cache.remember(verdict, url=f"https://example.org/{key}", tenant="a", pixels=key)
    each = (await used_bytes(client) - before) / WEIGHED
    print(f"a verdict with one face, its URL, pixels and prefix: {each:,.0f} bytes, {each / 1e3:.2f} GB a million")
    begun = time.perf_counter()
    for start in (0, 1_000) * 5:
        found = await cache.look_up_many(keys[start : start + 1_000], tenant="a", model_id=one.model.model_id)
        assert None not in found
    print(f"look_up_many: {10_000 / (time.perf_counter() - begun):,.0f} keys/s in batches of 1,000")


async def measure_looks(client: redis.asyncio.Redis) -> None:
    """What a scanned picture weighs in the near tier beside its index entry."""
    near, sizes = NearTier(client, VerdictCache(client), tenant="a"), []
    for number, path in enumerate(sorted((Path(__file__).parent / "media").glob("*_[123].jpg"))):
        with Image.open(path) as picture:
            look = Look(np.asarray(picture.convert("RGB")))
        await near.add(f"{number:064x}", look, [(0.3, 0.25, 0.7, 0.75)])
        sizes.append(await client.memory_usage(root_key(look.perceptual_hash, "a")))
    print(f"a scanned picture with one face: {statistics.mean(sizes):,.0f} bytes ({len(sizes)} portraits)")


async def run(url: str, sizes: list[int]) -> None:
    async with redis.asyncio.Redis.from_url(url, socket_timeout=None) as client:
        await check_fill(client, np.random.default_rng(1))
        print(f"Python {platform.python_version()}, Redis {(await client.info('server'))['redis_version']}, one client")
        await measure_indices(client, sizes)
        await measure_verdicts(client)
        await measure_looks(client)


def main() -> None:
    """Print the tables."""
    sizes = [int(word) for word in sys.argv[1:]] or list(SIZES)
    with tempfile.TemporaryDirectory() as folder, redis_in(Path(folder)) as url:
        asyncio.run(run(url, sizes))


if __name__ == "__main__":
    main()
