import asyncio

import msgspec
import pytest
import redis.asyncio
from redis_server import redis_in

from scanner import errors
from scanner.cache.failures import LIFE_S, Failures
from scanner.contract import Failure

URL = "https://example.org/gone.jpg"
GONE = Failure(code="gone", message="404 Not Found", retryable=False)


@pytest.fixture
def with_failures(tmp_path):
    def run(work):
        async def main(url):
            async with redis.asyncio.Redis.from_url(url) as client:
                await work(Failures(client), client)

        with redis_in(tmp_path / "redis") as url:
            asyncio.run(main(url))

    return run


def leaves(error):
    return [leaf for child in error.__subclasses__() for leaf in leaves(child)] or [error]


def test_what_is_the_sources_doing_is_remembered_and_what_is_ours_is_not():
    theirs = {leaf.code for kind in (errors.FetchError, errors.MediaError) for leaf in leaves(kind)}
    ours = {leaf.code for kind in (errors.EngineError, errors.JobError) for leaf in leaves(kind)}
    assert theirs - set(LIFE_S) == {"bad_source", "host_given_up"}  # refused before it is a scan; a list's own choice
    assert not ours & set(LIFE_S)


def test_what_may_pass_is_asked_again_sooner_than_what_only_its_owner_can_change():
    retryable = {code for code in LIFE_S if errors.by_code()[code].retryable}
    assert {LIFE_S[code] for code in retryable} == {60}
    assert LIFE_S["gone"] == 600


def test_a_failure_answers_for_its_time_to_its_own_tenant_until_it_is_forgotten(with_failures):
    async def work(failures, client):
        await failures.remember(GONE, url=URL + "#top", tenant="a")
        known = await failures.known(URL, tenant="a")
        assert known.failure == GONE
        assert 0 < known.left_s <= LIFE_S["gone"]
        assert await failures.known(URL, tenant="b") is None
        await failures.forget(URL, tenant="a")
        assert await failures.known(URL, tenant="a") is None
        assert await client.dbsize() == 0

    with_failures(work)


@pytest.mark.parametrize(
    ("code", "retry_after_s", "life_s"),
    [("rate_limited", None, 60), ("rate_limited", 90.0, 90), ("rate_limited", 1e9, 600), ("no_engine", 90.0, 0)],
)
def test_a_server_that_asks_us_to_stay_away_is_heeded_within_reason(with_failures, code, retry_after_s, life_s):
    async def work(failures, _client):
        await failures.remember(Failure(code, "wait", True, retry_after_s), url=URL, tenant="")  # noqa: FBT003
        known = await failures.known(URL, tenant="")
        assert (0 if known is None else round(known.left_s)) == life_s

    with_failures(work)


@pytest.mark.parametrize("damage", [b"", b"\xff", msgspec.msgpack.encode({"code": 1}), b"\x91" * 2_000, "list"])
def test_a_damaged_entry_is_a_miss(with_failures, damage):
    async def work(failures, client):
        await failures.remember(GONE, url=URL, tenant="")
        (key,) = await client.keys()
        await client.delete(key)
        await (client.rpush(key, "x") if damage == "list" else client.set(key, damage))
        assert await failures.known(URL, tenant="") is None

    with_failures(work)
