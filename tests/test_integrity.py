"""What a liar, a late worker or another tenant could do to a verdict, and cannot; the ways in, one test each.

Elsewhere: keys and models (test_cache), the near tier's rules (test_recall), leases (test_ledger), receipts
(test_receipts), files that are taken in (test_archive).
"""

import asyncio

import msgspec
import numpy as np
import pytest
import redis
import redis.asyncio
import verdicts
from PIL import Image
from service import URL, served
from test_recall import NEVER, ask, forged, portrait, scan

from scanner.cache.recall import PROVISIONAL, Recall
from scanner.cache.verdicts import VerdictCache
from scanner.contract import Failure, Label, Outcome, ScanRequest
from scanner.service.drawings import ARTIFACT, Drawings, Drawn
from scanner.service.lease import Lease, accept
from scanner.service.ledger import Ledger
from scanner.settings import Settings

MODEL = verdicts.MODEL.model_id
LATE, RIGHT = verdicts.still(verdicts.scored(verdicts.LOW)), verdicts.still(verdicts.scored(verdicts.HIGH))


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client


def row_of(redis_url, id_):
    async def read():
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            ledger = Ledger(client)
            return await ledger.get(id_, tenant="t"), await ledger.artifact(id_, "report.html", tenant="t")

    return asyncio.run(read())


def overtaken(client):
    """A scan whose worker stood still until another one took it over: both leases, the old one first."""
    id_, _ = accept(client, ScanRequest(source_url=URL, tenant="t"))
    old = Lease.start(client, id_, owner="stands still")
    client.zadd("laescan:leases", {id_: 1})
    (expired,) = Lease.take_expired(client, most=1)
    expired.give_back(strike=True)
    return old, Lease.start(client, id_, owner="goes on")


# ---------------------------------------------------------------- results that come too late


@pytest.mark.parametrize("order", ["late first", "late between", "late last"])
def test_a_late_workers_result_and_its_picture_lie_beside_nothing(client, redis_url, order):
    old, new = overtaken(client)
    drawings = Drawings(client, Settings(), model_id=MODEL)

    def late():
        drawings.keep(old.id, old.fence, {"report.html": b"another picture", "plain.jpg": b"another"})
        return old.finish(Outcome(source=URL, verdict=LATE), Settings())

    if order == "late first":
        assert not late()
        assert row_of(redis_url, old.id)[1] is None
    assert drawings.keep(new.id, new.fence, {"report.html": b"this picture"})
    assert order != "late between" or not late()
    assert new.finish(Outcome(source=URL, verdict=RIGHT), Settings())
    assert not late(), "a replay of what was true once"
    row, report = row_of(redis_url, old.id)
    assert (row.outcome.verdict, report) == (RIGHT, b"this picture")
    assert set(client.hkeys(f"{ARTIFACT}{old.id}")) == {b"fence", b"bytes", b"report.html"}
    assert not new.finish(Outcome(source=URL, verdict=LATE), Settings()), "nor twice by the right one"


def test_a_late_workers_picture_is_not_shown_beside_an_outcome_without_one(client, redis_url):
    old, new = overtaken(client)
    drawings = Drawings(client, Settings(), model_id=MODEL)
    assert drawings.keep(old.id, old.fence, {"report.html": b"another picture"})
    assert new.finish(Outcome(source=URL, verdict=RIGHT), Settings())
    assert row_of(redis_url, old.id)[1] is None
    drawings.take_back(old.id, new.fence)
    assert client.exists(f"{ARTIFACT}{old.id}"), "that one is another's"
    drawings.take_back(old.id, old.fence)
    assert list(client.scan_iter(f"{ARTIFACT}*")) == []


def test_what_was_cancelled_gets_no_picture(client, redis_url):
    id_, _ = accept(client, ScanRequest(source_url=URL, tenant="t"))
    lease = Lease.start(client, id_, owner="w")

    async def cancel():
        async with redis.asyncio.Redis.from_url(redis_url) as other:
            await Ledger(other).cancel(id_, tenant="t")

    asyncio.run(cancel())
    assert Drawings(client, Settings(), model_id=MODEL).keep(id_, lease.fence, {"report.html": b"a picture"})
    assert not lease.finish(Outcome(source=URL, verdict=LATE), Settings())
    assert row_of(redis_url, id_)[1] is None


def test_drawings_are_taken_from_another_scan_whole_and_for_a_while(client, redis_url):
    settings = Settings(artifact_ttl_s=60)
    drawings = Drawings(client, settings, model_id=MODEL)
    first, second = (accept(client, ScanRequest(source_url=f"{URL}?{n}", tenant="t"))[0] for n in range(2))
    assert drawings.keep(first, 1, {"report.html": b"page", "overlay.jpg": b"drawn"})
    request = ScanRequest(source_url=URL, tenant="t")
    drawings.note(Drawn(first, "0" * 64), request)
    assert drawings.find(request) == Drawn(first, "0" * 64)
    assert drawings.find(ScanRequest(source_url=URL, tenant="other")) is None, "another tenant's URL is another"
    assert drawings.copy(second, 3, of=first)
    kept = {b"fence": b"3", b"bytes": b"9", b"report.html": b"page", b"overlay.jpg": b"drawn"}
    assert client.hgetall(f"{ARTIFACT}{second}") == kept
    assert 0 < client.ttl(f"{ARTIFACT}{second}") <= 60
    assert not drawings.copy(second, 4, of="nothing")


# ---------------------------------------------------------------- what a client sends


@pytest.mark.parametrize(
    "more",
    [{"sha256": "0" * 64}, {"verdict": {}}, {"model_id": "x"}, {"phash": "0" * 64}, {"tenant": "other"}],
    ids=lambda more: next(iter(more)),
)
def test_no_digest_verdict_or_tenant_is_taken_from_a_client(redis_url, tmp_path, more):
    async def asked(api):
        status, answer, _ = await api.ask("POST", "/v1/scans", json={"url": URL, **more})
        assert (status, answer["error"]["code"]) == (422, "invalid")
        assert [key async for key in api.service.redis.scan_iter("m1:*")] == []

    served(redis_url, tmp_path, asked)


def test_an_upload_says_nothing_about_the_url_that_it_is_named_after(redis_url, client):
    async def work():
        async with redis.asyncio.Redis.from_url(redis_url) as connection:
            memory = Recall(connection, Settings(**NEVER), model_id=MODEL, tenant="a")
            await scan(memory, portrait(), via="file")  # its source is URL, whatever it is
            assert await VerdictCache(connection).by_url(URL, tenant="a", model_id=MODEL) is None

    asyncio.run(work())


@pytest.mark.parametrize(
    "first",
    [
        LATE,
        msgspec.structs.replace(RIGHT, model=msgspec.structs.replace(RIGHT.model, model_id="older")),
        msgspec.structs.replace(RIGHT, media=msgspec.structs.replace(RIGHT.media, sha256="f" * 64)),
    ],
    ids=["another label", "another model", "another picture"],
)
def test_what_is_remembered_does_not_go_by_the_id_of_a_scan_that_said_something_else(redis_url, tmp_path, first):
    async def asked(api):
        id_ = await api.submit()
        api.finish(id_, first)
        cache = VerdictCache(api.service.memory)
        await cache.announce(RIGHT.model)
        await cache.remember(RIGHT, url=URL, tenant="local")
        status, scan, headers = await api.ask("POST", "/v1/scans", json={"url": URL})
        assert (status, scan["id"], scan["links"], "Location" in headers) == (200, None, None, False)
        assert scan["outcome"]["verdict"]["label"] == RIGHT.label

    served(redis_url, tmp_path, asked)


# ---------------------------------------------------------------- pictures that are made to be mistaken


def noisy(picture, seed):
    """Each channel of each pixel 8 up or down: what flips a detector, and what nobody sees."""
    pixels = np.asarray(picture).astype(np.int16)
    signs = np.random.default_rng(seed).choice([-8, 8], pixels.shape)
    return Image.fromarray(np.clip(pixels + signs, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("raw", [verdicts.HIGH, verdicts.LOW], ids=["manipulated", "authentic"])
@pytest.mark.parametrize("change", [noisy, lambda picture, _seed: forged(picture)], ids=["noise", "forged"])
def test_a_poisoned_twin_is_scanned_or_stays_provisional_and_is_never_called_authentic(redis_url, client, raw, change):
    async def work():
        async with redis.asyncio.Redis.from_url(redis_url) as connection:
            memory = Recall(connection, Settings(), model_id=MODEL, tenant="a")
            await scan(memory, portrait(), raw=raw)
            for seed in range(2):
                found = await ask(memory, change(portrait(), seed))
                if found is not None:
                    assert found.cache.kind == "near"
                    assert found.cache.audit, "the first two are scanned afterwards, always"
                    assert PROVISIONAL in found.warnings
                    assert found.label is not Label.AUTHENTIC

    asyncio.run(work())


# ---------------------------------------------------------------- two tenants


def test_what_a_scan_led_to_is_told_to_its_tenant_only(redis_url, tmp_path):
    async def asked(api):
        mine, theirs = await api.token(tenant="mine"), await api.token(tenant="theirs")
        _, scan_, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=mine)
        api.finish(scan_["id"], RIGHT, report_html=b"page")
        for path in ("", "/report", "/receipt", "/events"):
            status, _, _ = await api.ask("GET", f"/v1/scans/{scan_['id']}{path}", headers=theirs)
            assert status == 404, path
        status, second, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=theirs)
        assert (status, second["id"] == scan_["id"]) == (202, False), "nor is it joined"

    served(redis_url, tmp_path, asked, access="token")


def test_a_failure_is_no_verdict_on_anything(redis_url, tmp_path):
    async def asked(api):
        id_ = await api.submit()
        lease = api.begin(id_)
        failed = Outcome(source=URL, failure=Failure(code="gone", message="gone", retryable=False))
        assert lease.finish(failed, api.service.settings)
        lease.client.close()
        _, scan_, _ = await api.ask("GET", f"/v1/scans/{id_}")
        assert scan_["outcome"]["verdict"] is None
        status, _, _ = await api.ask("GET", f"/v1/scans/{id_}/receipt")
        assert status == 404
        assert msgspec.json.decode(msgspec.json.encode(scan_["outcome"]), type=Outcome) == failed

    served(redis_url, tmp_path, asked)
