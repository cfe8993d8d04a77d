"""What was drawn of scans stays within its budget, wherever it lies; a full Redis ends the scans that it has."""

import asyncio
import random

import pytest
import redis
import redis.asyncio
from redis_server import redis_in
from service import serving
from test_horse import NOWHERE, Recording
from verdicts import HIGH, scored, still

from scanner.contract import Outcome, ScanRequest
from scanner.pipeline import ScanResult
from scanner.service.drawings import ARTIFACT, Drawings
from scanner.service.horse import Horse
from scanner.service.lease import Lease, accept
from scanner.service.ledger import ROW
from scanner.service.stable import Task
from scanner.settings import Settings

VERDICT = still(scored(HIGH))
KIB, MIB = 1 << 10, 1 << 20
ASK = ScanRequest(source_url="https://example.org/a.jpg", tenant="t")


@pytest.fixture(scope="module")
def small_url(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("r")) as found:
        yield found


@pytest.fixture
def client(small_url):
    """A ledger's Redis with little memory, and all of it free."""
    with redis.Redis.from_url(small_url) as client:
        client.config_set("maxmemory", 0)
        client.flushall()
        yield client


def drawings_in(client, **settings):
    return Drawings(client, Settings(**settings), model_id="m")


def kept_in(client):
    return {key.decode().removeprefix(ARTIFACT) for key in client.scan_iter(f"{ARTIFACT}*")}


def begun(client, name="a"):
    id_, _ = accept(client, ScanRequest(source_url=f"https://example.org/{name}.jpg", tenant="t"))
    lease = Lease.start(client, id_, owner="w")
    assert lease
    return lease


def fill(client):
    """Let nothing be written from now on but what needs no memory."""
    client.set("filler", b"x" * 2 * MIB)
    client.config_set("maxmemory", MIB)


def test_the_oldest_go_first_and_the_index_goes_with_them(client):
    drawings = drawings_in(client, max_artifact_bytes=1_000)
    for n in range(5):
        assert drawings.keep(f"s{n}", 1, {"report.html": b"x" * 300})
    assert kept_in(client) == {"s2", "s3", "s4"}
    assert not drawings.keep("large", 1, {"report.html": b"x" * 1_001})
    assert drawings.keep("s3", 2, {"report.html": b"x" * 100}), "another attempt takes the place of the first"
    assert drawings.keep("s5", 1, {"report.html": b"x" * 300})
    assert kept_in(client) == {"s2", "s3", "s4", "s5"}
    for id_ in kept_in(client):
        drawings.take_back(id_, client.hget(ARTIFACT + id_, "fence"))
    assert client.dbsize() == 0


@pytest.mark.parametrize("with_one_limit", [True, False])
def test_a_redis_that_the_ledger_shares_never_fills_with_drawings(client, with_one_limit):
    client.config_set("maxmemory", 24 * MIB)
    drawings = drawings_in(client, max_artifact_bytes=256 * MIB if with_one_limit else 4 * MIB)
    page = random.Random(1).randbytes(500 * KIB)
    ended = []
    for _ in range(80):  # 40 MB
        lease = begun(client)
        assert lease.renew()
        assert drawings.keep(lease.id, lease.fence, {"report.html": page})
        assert lease.finish(Outcome(source="a", verdict=VERDICT), Settings())
        ended.append(lease.id)
    assert all(client.exists(ROW + id_) for id_ in ended)
    assert kept_in(client) == set(ended[-12 if with_one_limit else -8 :]), "a quarter of the Redis, or what was set"


def test_in_a_full_redis_what_was_accepted_goes_on_and_ends_and_nothing_new_is_taken(client):
    first, second, third = (begun(client, name) for name in "bcd")
    fill(client)
    with pytest.raises(redis.exceptions.ResponseError, match="OOM"):
        accept(client, ASK)
    assert all(lease.renew() for lease in (first, second, third))
    with pytest.raises(redis.exceptions.ResponseError, match="OOM"):
        drawings_in(client).keep(first.id, first.fence, {"report.html": b"x"})
    assert first.finish(Outcome(source="a", verdict=VERDICT), Settings())
    assert second.give_back(strike=False) == "interactive"
    client.config_set("maxmemory", 0)
    client.zadd("laescan:leases", {third.id: 1})
    client.config_set("maxmemory", MIB)
    (expired,) = Lease.take_expired(client, most=10)
    assert expired.id == third.id
    assert client.hget(ROW + first.id, "state") == b"done"


@pytest.mark.parametrize("fault", ["full", "away"])
def test_a_scan_ends_without_its_report_where_that_cannot_be_kept(client, small_url, fault, monkeypatch, caplog):
    lease, cache_url = begun(client), small_url if fault == "full" else NOWHERE
    settings = Settings(redis_url=small_url, cache_url=cache_url)
    monkeypatch.setattr("scanner.service.horse.artifacts_of", lambda _: {"report.html": b"page"})

    async def finish():
        async with redis.asyncio.Redis.from_url(cache_url) as memory:
            horse = Horse(Recording(), None, memory, settings)
            result = ScanResult(Outcome(source="a", verdict=VERDICT), (None,))
            await horse._finish(Task(lease.id, lease.fence, 1, 0.0, ASK), lease, result, None, 0.0)

    if fault == "full":
        fill(client)
    asyncio.run(finish())
    assert client.hget(ROW + lease.id, "state") == b"done"
    assert "its report is not kept" in caplog.text
    assert kept_in(client) == set()


def test_reports_lie_in_the_redis_that_may_evict_and_are_served_and_forgotten_there(client, small_url, tmp_path):
    async def asked():
        settings = Settings(redis_url=small_url, cache_url=cache_url, spool=str(tmp_path / "spool"))
        async with serving(settings) as api:
            id_ = await api.submit()
            api.finish(id_, VERDICT, report_html=b"page")
            assert kept_in(client) == set()
            with redis.Redis.from_url(cache_url) as cache:
                assert kept_in(cache) == {id_}
                assert (await api.ask("GET", f"/v1/scans/{id_}/report"))[:2] == (200, b"page")
                assert (await api.ask("DELETE", f"/v1/scans/{id_}"))[0] == 200
                assert kept_in(cache) == set()
            id_ = await api.submit()
            api.finish(id_, VERDICT, report_html=b"page")
            with redis.Redis.from_url(cache_url) as cache:
                cache.flushall()
            status, error, _ = await api.ask("GET", f"/v1/scans/{id_}/report")
            assert (status, error["error"]["code"]) == (404, "not_found")
            assert "not kept" in error["error"]["message"]

    with redis_in(tmp_path / "c") as cache_url:
        asyncio.run(asked())
