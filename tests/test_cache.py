import asyncio
from pathlib import Path

import msgspec
import pytest
import redis.asyncio
import verdicts
from redis.exceptions import RedisError
from redis_server import redis_in

from scanner.cache import verdicts as cache_module
from scanner.cache.buckets import Buckets
from scanner.cache.upkeep import purge
from scanner.cache.urls import canonical_url
from scanner.cache.validators import Validators
from scanner.cache.verdicts import VerdictCache
from scanner.contract import CacheInfo, Label, ModelInfo
from scanner.settings import Settings

MODEL = verdicts.MODEL.model_id
URL = "https://example.org/a.jpg?size=2"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def with_cache(server):
    """Run an async function with an empty cache and its Redis."""

    def run(work, settings=None):
        async def main():
            async with redis.asyncio.Redis.from_url(server) as client:
                await client.flushall()
                await work(VerdictCache(client, settings), client)

        asyncio.run(main())

    return run


def verdict_on(sha256, raw=verdicts.HIGH):
    verdict = verdicts.still(verdicts.scored(raw))
    return msgspec.structs.replace(verdict, media=msgspec.structs.replace(verdict.media, sha256=sha256))


def sha(number):
    return f"{number:064x}"


def as_remembered(verdict):
    return msgspec.structs.replace(verdict, cache=CacheInfo())


def test_what_was_remembered_is_found_by_url_bytes_and_pixels_with_its_age(with_cache):
    async def work(cache, _client):
        verdict = verdict_on(sha(1))
        await cache.remember(verdict, url=URL, tenant="a", pixels=sha(9))
        for by, found in {
            "url": await cache.by_url(URL, tenant="a", model_id=MODEL),
            "sha256": await cache.by_sha256(sha(1), model_id=MODEL),
            "pixels": await cache.by_pixels(sha(9), model_id=MODEL),
        }.items():
            assert as_remembered(found) == verdict
            assert (found.cache.kind, found.cache.by) == ("exact", by)
            assert 0 <= found.cache.age_s < 60
        assert cache.counts == {"hit:url": 1, "hit:sha256": 1, "hit:pixels": 1}

    with_cache(work)


def test_a_verdict_is_bound_to_the_model_and_to_what_decides_which_faces_it_saw(with_cache):
    async def work(cache, client):
        await cache.remember(verdict_on(sha(1)), url=URL, pixels=sha(9))
        assert await cache.by_sha256(sha(1), model_id="newer") is None
        assert await cache.by_url(URL, tenant="", model_id="newer") is None
        assert await cache.by_pixels(sha(9), model_id="newer") is None
        other = VerdictCache(client, Settings(max_frames=64))
        assert await other.by_sha256(sha(1), model_id=MODEL) is None
        same = VerdictCache(client, Settings(workers=3))
        assert await same.by_sha256(sha(1), model_id=MODEL) is not None

    with_cache(work)


def test_a_url_is_its_tenants_own_and_bytes_are_everybodys(with_cache):
    async def work(cache, client):
        await cache.remember(verdict_on(sha(1)), url=URL, tenant="a")
        assert await cache.by_url(URL, tenant="b", model_id=MODEL) is None
        assert await cache.known_url(URL, tenant="b") is None
        assert await cache.by_sha256(sha(1), model_id=MODEL)
        keys = [key async for key in client.scan_iter()]
        assert not any(b"example" in key for key in keys), "a URL can be read in a key"

    with_cache(work)


def test_the_separator_of_tenant_and_url_cannot_be_forged(with_cache):
    async def work(cache, _client):
        await cache.remember(verdict_on(sha(1)), url="https://x.org/b", tenant="a")
        assert await cache.by_url("x.org/b", tenant="ahttps://", model_id=MODEL) is None

    with_cache(work)


def test_a_url_is_believed_for_a_while_and_its_validators_for_longer(with_cache):
    async def work(cache, _client):
        validators = Validators('"v1"', None)
        await cache.remember(verdict_on(sha(1)), url=URL, validators=validators)
        assert await cache.by_url(URL, tenant="", model_id=MODEL, max_age_s=0.0) is None
        assert await cache.by_url(URL, tenant="", model_id=MODEL, max_age_s=60.0) is not None
        known = await cache.known_url(URL, tenant="")
        assert (known.sha256, known.validators) == (sha(1), validators)

    with_cache(work, Settings(url_fresh_s=0.001))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("HTTPS://Example.org/a.jpg", "https://example.org/a.jpg#face", True),
        ("https://user:secret@example.org/a", "https://example.org/a", True),
        ("https://example.org", "https://example.org/", True),
        ("https://example.org/A", "https://example.org/a", False),
        ("https://example.org/a?x=1&y=2", "https://example.org/a?y=2&x=1", False),
        ("http://example.org/a", "https://example.org/a", False),
        ("https://[", "https://[", True),
    ],
)
def test_only_urls_that_must_mean_the_same_share_a_key(one, other, same):
    assert (canonical_url(one) == canonical_url(other)) is same


def test_many_are_looked_up_in_one_round_trip_and_in_order(with_cache):
    async def work(cache, client):
        for number in range(20):
            await cache.remember(verdict_on(sha(number)), url=f"{URL}&n={number}")
        await cache.by_sha256(sha(0), model_id=MODEL)  # the script is known from here on
        before = (await client.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        keys = [f"{URL}&n=7", sha(3), sha(999), "https://example.org/none", sha(19), "", "x" * 9_000]
        found = await cache.look_up_many(keys, tenant="", model_id=MODEL)
        assert [v and v.media.sha256 for v in found] == [sha(7), sha(3), None, None, sha(19), None, None]
        assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
        assert await cache.look_up_many([], tenant="", model_id=MODEL) == []

    with_cache(work)


@pytest.mark.parametrize("damage", [b"", b"\x00", b"not msgpack", b"\xff" * 200, b"\x92\x01\x80", None, "list"])
def test_a_damaged_entry_is_a_miss_that_is_counted(with_cache, damage):
    async def work(cache, client):
        await cache.remember(verdict_on(sha(1)), url=URL, pixels=sha(9))
        (key,) = [key async for key in client.scan_iter(match="m1:v:*")]
        if damage == "list":
            await client.delete(key)
            await client.rpush(key, "another type")
        elif damage is None:
            await client.set(key, (await client.get(key))[:-1])
        else:
            await client.set(key, damage)
        assert await cache.by_sha256(sha(1), model_id=MODEL) is None
        assert await cache.by_url(URL, tenant="", model_id=MODEL) is None
        assert await cache.by_pixels(sha(9), model_id=MODEL) is None
        assert await cache.look_up_many([sha(1), URL], tenant="", model_id=MODEL) == [None, None]
        if damage != "list":
            assert sum(n for name, n in (await cache.stats()).items() if name.startswith("corrupt:")) == 5
        await cache.remember(verdict_on(sha(1)))
        assert await cache.by_sha256(sha(1), model_id=MODEL) is not None, "a scan mends the entry"

    with_cache(work)


def test_a_verdict_on_something_else_is_never_served(with_cache):
    async def work(cache, client):
        await cache.remember(verdict_on(sha(1)))
        await cache.remember(verdict_on(sha(2)))
        one, two = sorted([key async for key in client.scan_iter(match="m1:v:*")])
        await client.set(two, await client.get(one))
        assert await cache.by_sha256(sha(2), model_id=MODEL) is None
        assert (await cache.stats())["corrupt:v"] == 1

    with_cache(work)


@pytest.mark.parametrize("pointer", [b"", b"short", b"g" * 64, sha(1).encode(), sha(1).encode() + b"\xc1"])
def test_a_damaged_pointer_leads_nowhere(with_cache, pointer):
    async def work(cache, client):
        await cache.remember(verdict_on(sha(1)), url=URL)
        (key,) = [key async for key in client.scan_iter(match="m1:u:*")]
        await client.set(key, pointer)
        assert await cache.by_url(URL, tenant="", model_id=MODEL) is None
        assert await cache.known_url(URL, tenant="") is None

    with_cache(work)


def test_entries_end_sooner_when_the_model_was_unsure(with_cache):
    async def work(cache, client):
        await cache.remember(verdict_on(sha(1)), url=URL, pixels=sha(9))
        unsure = verdict_on(sha(2), raw=0.0)
        assert unsure.label is Label.INCONCLUSIVE
        await cache.remember(unsure)
        for kind, days in (("u", 1), ("p", 30)):
            (key,) = [key async for key in client.scan_iter(match=f"m1:{kind}:*")]
            assert round(await client.ttl(key) / 86_400) == days
        ttls = sorted([await client.ttl(key) async for key in client.scan_iter(match="m1:v:*")])
        assert [round(ttl / 86_400) for ttl in ttls] == [7, 30]
        without_end = [key async for key in client.scan_iter() if await client.ttl(key) < 0]
        assert without_end == [b"m1:stats"]

    with_cache(work)


# ---------------------------------------------------------------- by a part of the digest


def test_a_prefix_finds_all_that_begin_so_and_nothing_else(with_cache):
    async def work(cache, _client):
        digests = [f"{number:03x}".ljust(64, "7") for number in (0x000, 0x001, 0x00F, 0x010, 0x7FF, 0x800, 0xFFF)]
        for digest in digests:
            await cache.remember(verdict_on(digest))
            await cache.remember(verdict_on(digest))  # a second scan makes no second entry

        async def found(bits):
            return [digest for digest, _ in await cache.by_prefix(bits, tenant="", model_id=MODEL)]

        assert await found("0000") == digests[:4]
        assert await found("00000000") == digests[:3]
        assert await found("000000000001") == [digests[1]]
        assert await found("000000000001" + "0111") == [digests[1]]
        assert await found("000000000001" + "1000") == []
        assert await found("1000") == [digests[5]]
        assert await found("1111") == [digests[6]]
        assert await cache.by_prefix("0000", tenant="", model_id="newer") == []
        assert await cache.by_prefix("0000", tenant="b", model_id=MODEL) == [], "what others have is not listed"

    with_cache(work)


@pytest.mark.parametrize("bits", ["", "010", "01012", "0" * 257, "ab", "0101 "])
def test_a_prefix_that_is_none_is_refused(with_cache, bits):
    async def work(cache, _client):
        with pytest.raises(ValueError, match="4 to 256"):
            await cache.by_prefix(bits, tenant="", model_id=MODEL)

    with_cache(work)


def test_a_prefix_that_fits_too_many_is_refused(with_cache, monkeypatch):
    monkeypatch.setattr(cache_module, "MAX_PREFIX_ANSWERS", 2)

    async def work(cache, _client):
        for number in range(3):
            await cache.remember(verdict_on(sha(number)))
        with pytest.raises(ValueError, match="more bits"):
            await cache.by_prefix("0000", tenant="", model_id=MODEL)

    with_cache(work)


def test_a_bucket_has_an_end_and_what_does_not_fit_is_counted(with_cache):
    async def work(_cache, client):
        buckets = Buckets(client, b"t:", size_bytes=2, life_s=100, cap=2)
        assert await buckets.add([(b"a", b"11"), (b"a", b"11"), (b"a", b"22"), (b"b", b"11")]) == 0
        assert await buckets.add([(b"a", b"33"), (b"a", b"11"), (b"b", b"12")]) == 1
        assert await buckets.read([b"a", b"b", b"none"]) == ({b"11", b"22", b"12"}, 0)

    with_cache(work)


def test_a_record_across_two_others_is_not_taken_for_one(with_cache):
    async def work(_cache, client):
        buckets = Buckets(client, b"t:", size_bytes=2, life_s=100)
        await buckets.add([(b"a", b"12"), (b"a", b"34"), (b"a", b"23")])
        assert await buckets.read([b"a"]) == ({b"12", b"34", b"23"}, 0)

    with_cache(work)


def test_a_record_outlives_the_turn_of_one_generation_and_not_of_two(with_cache, monkeypatch):
    async def work(_cache, client):
        buckets = Buckets(client, b"t:", size_bytes=1, life_s=100_000)
        await buckets.add([(b"a", b"1")])
        now = buckets._generation()
        monkeypatch.setattr(buckets, "_generation", lambda: now + 1)
        assert await buckets.read([b"a"]) == ({b"1"}, 0)
        monkeypatch.setattr(buckets, "_generation", lambda: now + 2)
        assert await buckets.read([b"a"]) == (set(), 0)
        (key,) = [key async for key in client.scan_iter(match="t:*")]
        assert 100_000 < await client.ttl(key) <= 200_000

    with_cache(work)


def test_a_damaged_bucket_is_left_out_counted_and_mended(with_cache):
    async def work(_cache, client):
        buckets = Buckets(client, b"t:", size_bytes=2, life_s=100)
        await buckets.add([(b"a", b"11"), (b"b", b"22")])
        (key,) = [key async for key in client.scan_iter(match="t:*:a")]
        await client.set(key, b"123")
        assert await buckets.read([b"a", b"b"]) == ({b"22"}, 1)
        await buckets.add([(b"a", b"33")])
        assert await buckets.read([b"a"]) == ({b"33"}, 0)
        await client.delete(key)
        await client.rpush(key, "another type")
        assert await buckets.read([b"a"]) == (set(), 0)
        await buckets.add([(b"a", b"44")])
        assert await buckets.read([b"a"]) == ({b"44"}, 0)

    with_cache(work)


# ---------------------------------------------------------------- failures, models, upkeep


def test_who_judges_is_known_without_a_model(with_cache):
    async def work(cache, client):
        assert await cache.model() is None
        await cache.announce(ModelInfo("m", "cpu", "fp32"))
        assert await cache.model() == ModelInfo("m", "cpu", "fp32")
        await client.set("m1:model", b"\xc1")
        assert await cache.model() is None

    with_cache(work)


def test_a_purge_takes_all_that_is_ours_and_nothing_else(with_cache):
    async def work(cache, client):
        await client.set("ledger:1", "a scan")
        await cache.remember(verdict_on(sha(1)), url=URL, pixels=sha(9))
        await cache.forget(sha(1), model_id=MODEL)
        assert await cache.by_url(URL, tenant="", model_id=MODEL) is None
        await cache.announce(ModelInfo("m", "cpu", "fp32"))
        await cache.remember(verdict_on(sha(2)))
        assert await purge(client) == 1
        assert sorted([key async for key in client.scan_iter()]) == [b"ledger:1", b"m1:model"]

    with_cache(work)


def test_without_redis_the_caller_hears_of_it(tmp_path: Path):
    async def work():
        async with redis.asyncio.Redis.from_url(f"unix://{tmp_path}/none.sock") as client:
            with pytest.raises(RedisError):
                await VerdictCache(client).by_sha256(sha(1), model_id=MODEL)

    asyncio.run(work())
