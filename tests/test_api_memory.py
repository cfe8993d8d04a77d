"""What the API answers from memory, forgets on demand, and says when its memory is gone."""

import asyncio

import msgspec
import pytest
import redis
import verdicts
from redis_server import redis_in, start_redis
from service import MODEL, URL, serving

from scanner.contract import Failure, Outcome
from scanner.service.embedded import socket_url
from scanner.settings import Settings

FORGED = verdicts.still(verdicts.scored(verdicts.HIGH))
GONE = Failure(code="gone", message="404 Not Found", retryable=False)


async def fail(api, id_, failure=GONE, url=URL, tenant="local"):
    """What a worker does when a source fails."""
    lease = api.begin(id_)
    await api.service.failures.remember(failure, url=url, tenant=tenant)
    assert lease.finish(Outcome(source=url, failure=failure), api.service.settings)
    lease.client.close()


# ---------------------------------------------------------------- failures


def test_a_failure_of_just_now_is_answered_without_a_scan_until_a_rescan_is_asked_for(serve):
    async def test(api):
        id_ = await api.submit()
        await fail(api, id_)
        status, scan, headers = await api.ask("POST", "/v1/scans", json={"url": URL})
        assert (status, scan["id"], scan["state"]) == (200, id_, "failed")
        assert scan["outcome"]["failure"]["code"] == "gone"
        assert 0 < int(headers["Retry-After"]) <= 600
        assert (await api.service.ledger.depths())["interactive"] == 0
        assert 'laescan_lookups_total{tier="hit:failure"} 1.0' in (await api.ask("GET", "/metrics"))[1].decode()
        assert await api.submit(rescan=True) != id_

    serve(test)


def test_a_failure_is_answered_when_its_scan_is_forgotten_too(serve):
    async def test(api):
        await api.service.failures.remember(GONE, url=URL, tenant="local")
        status, scan, _ = await api.ask("POST", "/v1/scans", json={"url": URL})
        assert (status, scan["id"], scan["links"], scan["state"]) == (200, None, None, "failed")

    serve(test)


def test_a_failure_of_one_tenant_tells_another_nothing(serve):
    async def test(api):
        await api.service.failures.remember(GONE, url=URL, tenant="other")
        await api.submit()

    serve(test)


def test_a_verdict_goes_before_a_failure(serve):
    async def test(api):
        await api.service.cache.announce(MODEL)
        await api.service.cache.remember(FORGED, url=URL, tenant="local")
        await api.service.failures.remember(GONE, url=URL, tenant="local")
        assert (await api.ask("POST", "/v1/scans", json={"url": URL}))[1]["outcome"]["verdict"][
            "label"
        ] == "manipulated"

    serve(test)


def test_who_repeats_a_request_is_told_of_its_own_scan_also_when_the_verdict_is_remembered(serve):
    async def test(api):
        await api.service.cache.announce(MODEL)
        headers = {"Idempotency-Key": "once"}
        first = (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers))[1]["id"]
        api.finish(first, FORGED)
        await api.service.cache.remember(FORGED, url=URL, tenant="local")
        await api.service.redis.delete(*[key async for key in api.service.redis.scan_iter(match="laescan:last:*")])
        _, again, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
        assert (again["id"], again["state"]) == (first, "done")

    serve(test)


# ---------------------------------------------------------------- forgetting


def test_deleting_an_ended_scan_leaves_nothing_of_it_but_the_verdict_on_the_file(serve):
    async def test(api):
        await api.service.cache.announce(MODEL)
        id_ = await api.submit()
        await api.service.cache.remember(FORGED, url=URL, tenant="local")
        api.finish(id_, FORGED, report_html=b"<p>", overlay_jpg=b"jpeg", plain_jpg=b"jpeg")
        theirs = await api.token(tenant="other")
        assert (await api.ask("DELETE", f"/v1/scans/{id_}", headers=theirs))[0] == 404
        status, scan, _ = await api.ask("DELETE", f"/v1/scans/{id_}")
        assert (status, scan["state"], scan["id"]) == (200, "done", id_)
        for path in ("", "/report", "/overlay", "/events"):
            assert (await api.ask("GET", f"/v1/scans/{id_}{path}"))[0] == 404
        assert (await api.ask("DELETE", f"/v1/scans/{id_}"))[0] == 404
        assert not [key async for key in api.service.redis.scan_iter(match=f"laescan:*{id_}*")]
        assert (await api.ask("GET", f"/v1/verdicts?url={URL}"))[1] == {"verdicts": []}
        assert (await api.ask("GET", f"/v1/verdicts?sha256={FORGED.media.sha256}"))[1]["verdicts"]
        assert await api.submit() != id_, "asked again it is scanned again, under a new id"

    serve(test)


# ---------------------------------------------------------------- a memory that is gone


def test_who_waits_while_redis_is_emptied_is_told_that_the_scan_is_lost(serve):
    async def test(api):
        id_ = await api.submit()
        waiting = asyncio.create_task(api.ask("GET", f"/v1/scans/{id_}?wait=30"))
        watching = asyncio.create_task(api.ask("GET", f"/v1/scans/{id_}/events"))
        while not api.service.ledger._changes._waiting.get(id_):
            await api.service.redis.ping()
        await api.service.redis.flushall()
        status, body, _ = await waiting
        assert (status, body["error"]["code"]) == (404, "not_found")
        assert "is empty: what was submitted before is lost, submit it again" in body["error"]["message"]
        assert b"event: end" not in (await watching)[1]
        await api.submit()
        for path in (f"/v1/scans/{id_}", f"/v1/batches/{id_}"):
            assert "nothing is known from before 20" in (await api.ask("GET", path))[1]["error"]["message"]

    serve(test)


@pytest.fixture
def two_servers(tmp_path):
    """The settings of a service with a Redis for the ledger and a small one, which evicts, for the verdicts."""
    with redis_in(tmp_path / "ledger") as ledger_url:
        small = start_redis(tmp_path / "cache")
        try:
            with redis.Redis.from_url(socket_url(tmp_path / "cache")) as client:
                client.config_set("maxmemory-policy", "allkeys-lru")
                client.config_set("maxmemory", client.info("memory")["used_memory"] + 2_000_000)
            urls = {"redis_url": ledger_url, "cache_url": socket_url(tmp_path / "cache")}
            yield Settings(**urls, spool=str(tmp_path / "spool")), small
        finally:
            small.kill()
            small.wait()


def numbered(number):
    media = msgspec.structs.replace(FORGED.media, sha256=f"{number:064x}")
    return msgspec.structs.replace(FORGED, media=media)


def test_an_evicted_verdict_is_a_scan_more_and_never_a_wrong_one(two_servers):
    settings, _ = two_servers
    urls = [f"{URL}?n={number}" for number in range(1_500)]

    async def run():
        async with serving(settings) as api:
            ids = [await api.submit(url) for url in urls[:50]]
            for number, url in enumerate(urls):
                await api.service.cache.remember(numbered(number), url=url, tenant="local")
            await api.service.cache.announce(MODEL)
            assert (await api.service.memory.info("stats"))["evicted_keys"] > 100
            rows = []
            for start in range(0, len(urls), 500):
                asked = {"keys": urls[start : start + 500]}
                rows += (await api.ask("POST", "/v1/verdicts/lookup", json=asked))[1]["rows"]
            known = [row["known"] and row["known"]["sha256"] for row in rows]
            assert all(found in {None, f"{number:064x}"} for number, found in enumerate(known))
            lost, kept = known.index(None), [number for number, found in enumerate(known) if found]
            status = 202
            while status == 202:  # until one is asked for that was not evicted since
                number = kept.pop()
                status, scan, _ = await api.ask("POST", "/v1/scans", json={"url": urls[number]})
            assert (status, scan["outcome"]["verdict"]["media"]["sha256"]) == (200, f"{number:064x}")
            assert (await api.ask("POST", "/v1/scans", json={"url": urls[lost]}))[0] == 202
            states = await api.service.ledger.states(ids, tenant="local")
            assert states == {"queued": 50}, "the ledger is another server's, and loses nothing"
            assert "evicted" not in (await api.ask("GET", "/metrics"))[1].decode()

    asyncio.run(run())


def test_without_the_cache_scans_go_on_and_lookups_say_when_to_come_again(two_servers):
    settings, small = two_servers

    async def run():
        async with serving(settings) as api:
            await api.service.cache.announce(MODEL)
            small.kill()
            small.wait()
            id_ = await api.submit()
            assert (await api.ask("GET", f"/v1/scans/{id_}"))[1]["state"] == "queued"
            status, body, headers = await api.ask("GET", f"/v1/verdicts?url={URL}")
            assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "unavailable", "2")
            status, health, _ = await api.ask("GET", "/readyz")
            assert (status, health["status"]) == (200, "ok")
            assert "cache" in health["checks"]

    asyncio.run(run())
