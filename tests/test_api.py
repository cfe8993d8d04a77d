"""Scans and lookups over real HTTP, with a real Redis behind them."""

import asyncio
import hashlib
import random

import aiohttp
import msgspec
import numpy as np
import pytest
import verdicts
from PIL import Image
from redis_server import start_redis
from service import MODEL, URL, serving

from scanner.cache.fingerprint import Look
from scanner.cache.near import NearTier
from scanner.contract import CacheInfo, Outcome
from scanner.service import telemetry
from scanner.service.embedded import socket_url
from scanner.settings import Settings

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(200)
FORGED = verdicts.still(verdicts.scored(verdicts.HIGH))


def form(data=JPEG, name="photo.jpg", field="file"):
    made = aiohttp.FormData(quote_fields=False)  # as browsers do
    made.add_field(field, data, filename=name, content_type="application/octet-stream")
    return made


async def remember(api, verdict=FORGED, **where):
    await api.service.cache.announce(MODEL)
    await api.service.cache.remember(verdict, **where)


def code(body):
    return body["error"]["code"]


# ---------------------------------------------------------------- scans


def test_a_submitted_url_is_accepted_queued_and_told_where_to_look(serve):
    async def test(api):
        status, scan, headers = await api.ask("POST", "/v1/scans", json={"url": URL})
        assert (status, scan["state"], scan["source"], scan["position"]) == (202, "queued", URL, 0)
        assert headers["Location"] == scan["links"]["self"]
        assert int(headers["Retry-After"]) > 0
        assert "tenant" not in scan
        assert (await api.ask("GET", headers["Location"]))[1] == scan

    serve(test)


def test_the_job_is_in_rqs_queue_so_that_a_worker_finds_it(serve):
    async def test(api):
        id_ = await api.submit()
        (job,) = await api.service.redis.lrange("rq:queue:interactive", 0, -1)
        assert job.decode().startswith(id_)

    serve(test)


def test_the_same_url_asked_twice_is_one_scan(serve):
    async def test(api):
        assert await api.submit() == await api.submit()
        assert await api.submit() != await api.submit(rescan=True)

    serve(test)


def test_waiting_ends_with_the_outcome_and_not_before(serve):
    async def test(api):
        id_ = await api.submit()
        waiting = asyncio.create_task(api.ask("GET", f"/v1/scans/{id_}?wait=20"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        api.finish(id_, FORGED)
        status, scan, headers = await waiting
        assert (status, scan["state"], scan["outcome"]["verdict"]["label"]) == (200, "done", "manipulated")
        assert "Retry-After" not in headers

    serve(test)


def test_events_tell_each_stage_and_end_with_the_outcome(serve):
    async def test(api):
        id_ = await api.submit()
        async with api.http.get(f"{api.url}/v1/scans/{id_}/events") as response:
            assert response.content_type == "text/event-stream"
            lease = api.begin(id_)
            lease.progress("fetch", 40.0)
            seen = []
            async for line in response.content:
                if line.startswith(b"data: "):
                    seen.append(msgspec.json.decode(line[6:]))
                    if seen[-1]["stage"] == "fetch":
                        assert seen[-1]["percent"] == 40
                        lease.finish(Outcome(source=URL, verdict=FORGED), Settings())
        assert seen[-1]["outcome"]["verdict"]["score"] == FORGED.score
        assert [scan["state"] for scan in seen][-1] == "done"
        lease.client.close()

    serve(test)


def test_a_cancelled_scan_ends_at_once_with_a_code(serve):
    async def test(api):
        id_ = await api.submit()
        status, scan, _ = await api.ask("DELETE", f"/v1/scans/{id_}")
        assert (status, scan["state"], scan["outcome"]["failure"]["code"]) == (200, "cancelled", "cancelled")

    serve(test)


def test_report_and_overlay_are_what_the_worker_left(serve):
    async def test(api):
        id_ = await api.submit()
        for name in ("report", "overlay", "overlay?plain=true"):
            assert (await api.ask("GET", f"/v1/scans/{id_}/{name}"))[0] == 404
        api.finish(id_, FORGED, report_html=b"<p>why", overlay_jpg=b"drawn", plain_jpg=b"plain")
        status, page, headers = await api.ask("GET", f"/v1/scans/{id_}/report")
        assert (status, page) == (200, b"<p>why")
        assert "sandbox" in headers["Content-Security-Policy"]
        assert (await api.ask("GET", f"/v1/scans/{id_}/overlay"))[1] == b"drawn"
        assert (await api.ask("GET", f"/v1/scans/{id_}/overlay?plain=true"))[1] == b"plain"

    serve(test)


def test_what_is_remembered_is_answered_without_a_scan_under_the_id_that_found_it(serve):
    async def test(api):
        id_ = await api.submit()
        api.finish(id_, FORGED)
        await remember(api, url=URL, tenant="local")
        status, scan, _ = await api.ask("POST", "/v1/scans", json={"url": URL})
        assert (status, scan["id"], scan["outcome"]["verdict"]["cache"]["kind"]) == (200, id_, "exact")
        assert (await api.service.ledger.tally())["accepted"] == 1
        status, scan, _ = await api.ask("POST", "/v1/scans", json={"url": URL, "rescan": True})
        assert status == 202

    serve(test)


def test_a_remembered_verdict_needs_no_scan_to_be_there(serve):
    async def test(api):
        await remember(api, url=URL, tenant="local")
        status, scan, _ = await api.ask("POST", "/v1/scans", json={"url": URL})
        assert (status, scan["id"], scan["links"], scan["state"]) == (200, None, None, "done")

    serve(test)


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        (b"", 400, "bad_request"),
        (b"{", 400, "bad_request"),
        (b'{"url": "\xff"}', 400, "bad_request"),
        (b"[" * 30_000, 422, "invalid"),
        (b'{"url": ' + b"[" * 30_000, 422, "invalid"),
        (b'{"x":' * 12_000, 422, "invalid"),
        (b"{}", 422, "invalid"),
        (b'{"url": 7}', 422, "invalid"),
        (b'{"url": "https://a.b/c", "urll": 1}', 422, "invalid"),
        (b'{"url": "/etc/passwd"}', 422, "invalid"),
        (b'{"url": "-"}', 422, "invalid"),
        (b'{"url": "file:///etc/passwd"}', 422, "invalid"),
        (b'{"url": "https://a b/c"}', 422, "invalid"),
        (b'{"url": "https://a.b:99999/c"}', 422, "bad_source"),
        (b'{"url": "https:///c"}', 422, "bad_source"),
        (b'{"url": "https://a.b/' + b"c" * 9_000 + b'"}', 422, "invalid"),
        (('{"url": "https://a.b/' + "ü" * 5_000 + '"}').encode(), 422, "bad_source"),
        (b'{"url": "https://a.b/' + b"c" * 70_000 + b'"}', 413, "body_too_large"),
    ],
)
def test_a_bad_submission_is_refused_in_the_documented_shape(serve, body, status, why):
    async def test(api):
        answer = await api.ask("POST", "/v1/scans", data=body, headers={"Content-Type": "application/json"})
        assert (answer[0], code(answer[1])) == (status, why)
        assert set(answer[1]["error"]) == {"code", "message", "request_id", "retryable"}
        assert await api.service.ledger.tally() == {}

    serve(test)


def test_a_body_that_is_not_json_is_refused_whatever_is_in_it(serve):
    async def test(api):
        body = b'{"url": "https://example.org/a.jpg"}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            status, answer, _ = await api.ask("POST", "/v1/scans", data=body, headers={"Content-Type": kind})
            assert (status, code(answer)) == (415, "unsupported_type")
        headers = {"Content-Type": "application/json", "Content-Encoding": "identity"}
        assert (await api.ask("POST", "/v1/scans", data=body, headers=headers))[0] == 415

    serve(test)


@pytest.mark.parametrize("kind", ["application/json", 'multipart/form-data; boundary="x"'])
def test_a_gigabyte_is_refused_by_its_announcement(serve, kind):
    async def test(api):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
        head = f"POST /v1/scans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nContent-Length: 1000000000\r\n"
        writer.write(head.encode() + b"\r\n")
        assert b"413" in await reader.readline()
        writer.close()

    serve(test)


# ---------------------------------------------------------------- uploads


def test_an_upload_lies_in_the_spool_by_its_digest_and_is_queued(serve, tmp_path):
    async def test(api):
        status, scan, _ = await api.ask("POST", "/v1/scans", data=form(name="../../etc/my\u202e photo.jpg"))
        assert (status, scan["source"]) == (202, "my photo.jpg")
        (kept,) = (tmp_path / "spool").iterdir()
        assert (kept.name, kept.read_bytes()) == (hashlib.sha256(JPEG).hexdigest(), JPEG)

    serve(test)


def test_a_known_upload_is_answered_from_memory_and_writes_no_url_key(serve):
    async def test(api):
        media = msgspec.structs.replace(FORGED.media, sha256=hashlib.sha256(JPEG).hexdigest())
        await remember(api, msgspec.structs.replace(FORGED, media=media))
        status, scan, _ = await api.ask("POST", "/v1/scans", data=form())
        assert (status, scan["outcome"]["verdict"]["cache"]["kind"]) == (200, "exact")
        status, scan, _ = await api.ask("POST", "/v1/scans?rescan=true", data=form(), headers={"Idempotency-Key": "k"})
        assert (status, scan["state"]) == (202, "queued")
        assert api.begin(scan["id"]).request.rescan
        assert (await api.ask("POST", "/v1/scans", data=form(), headers={"Idempotency-Key": "k"}))[0] == 409
        assert (await api.ask("POST", "/v1/scans?rescan=perhaps", data=form()))[0] == 422
        assert [key async for key in api.service.redis.scan_iter(match="m1:u:*")] == []

    serve(test)


@pytest.mark.parametrize(
    ("data", "field", "status", "why"),
    [
        (b"", "file", 422, "empty"),
        (b"#EXTM3U\n", "file", 415, "unsupported_media"),
        (JPEG, "photo", 422, "invalid"),
        (JPEG + bytes(2_000), "file", 413, "too_large"),
    ],
)
def test_a_bad_upload_is_refused_and_leaves_nothing(serve, tmp_path, data, field, status, why):
    async def test(api):
        answer = await api.ask("POST", "/v1/scans", data=form(data, field=field))
        assert (answer[0], code(answer[1])) == (status, why)
        assert list((tmp_path / "spool").iterdir()) == []

    serve(test, max_image_bytes=1_000)


@pytest.mark.parametrize(
    "body", [b"", b"--x", b"--x\r\n\r\n", b"nonsense", b'--x\r\nContent-Disposition: form-data; name="file"']
)
def test_a_broken_form_is_the_callers_mistake(serve, body):
    async def test(api):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        status, answer, _ = await api.ask("POST", "/v1/scans", data=body, headers=headers)
        assert status in {400, 415, 422}, answer
        headers = {"Content-Type": "multipart/form-data"}
        status, answer, _ = await api.ask("POST", "/v1/scans", data=body, headers=headers)
        assert (status, code(answer)) == (400, "bad_request")

    serve(test)


# ---------------------------------------------------------------- idempotency and backpressure


def test_an_idempotency_key_stands_for_one_request(serve):
    async def test(api):
        headers = {"Idempotency-Key": "k1"}
        first = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
        api.finish(first[1]["id"], FORGED)
        again = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
        assert again[1]["id"] == first[1]["id"]
        status, answer, _ = await api.ask("POST", "/v1/scans", json={"url": URL + "?other"}, headers=headers)
        assert (status, code(answer)) == (409, "idempotency_conflict")
        for body in ({"json": {"url": URL}}, {"data": form()}):
            status, answer, _ = await api.ask("POST", "/v1/scans", headers={"Idempotency-Key": "ü" * 3}, **body)
            assert (status, code(answer)) == (400, "bad_request")

    serve(test)


def test_a_full_queue_says_when_to_come_again(serve):
    async def test(api):
        await api.submit()
        for options in ({"json": {"url": URL + "2"}}, {"data": form()}):
            status, answer, headers = await api.ask("POST", "/v1/scans", **options)
            assert (status, code(answer)) == (503, "queue_full")
            assert int(headers["Retry-After"]) > 0
        assert (await api.ask("POST", "/v1/batches", json={"urls": [URL + "3"]}))[0] == 202  # a queue of its own

    serve(test, max_queued=1)


def test_who_repeats_what_was_accepted_is_not_refused_by_a_full_queue(serve):
    async def test(api):
        for key, options in (("url", lambda: {"json": {"url": URL}}), ("file", lambda: {"data": form()})):
            headers = {"Idempotency-Key": key}
            status, scan, _ = await api.ask("POST", "/v1/scans", headers=headers, **options())
            assert status == 202
            assert (await api.ask("POST", "/v1/scans", json={"url": URL + "2"}))[0] == 503
            status, again, _ = await api.ask("POST", "/v1/scans", headers=headers, **options())
            assert (status, again["id"]) == (202, scan["id"])
            await api.ask("DELETE", f"/v1/scans/{scan['id']}")

    serve(test, max_queued=1)


def test_without_redis_everyone_is_told_to_come_again_and_soon_may(tmp_path):
    async def run():
        folder = tmp_path / "redis"
        server = start_redis(folder)
        async with serving(Settings(redis_url=socket_url(folder), spool=str(tmp_path))) as api:
            id_ = await api.submit()
            server.kill()
            server.wait()
            for method, path in (
                ("POST", "/v1/scans"),
                ("GET", f"/v1/scans/{id_}"),
                ("GET", "/v1/verdicts?url=" + URL),
            ):
                body = {"json": {"url": URL + "?2"}} if method == "POST" else {}
                status, answer, headers = await api.ask(method, path, **body)
                assert (status, code(answer), answer["error"]["retryable"]) == (503, "unavailable", True)
                assert int(headers["Retry-After"]) > 0
            assert (await api.ask("GET", "/healthz"))[0] == 200
            assert (await api.ask("GET", "/readyz"))[0] == 503
            assert b"laescan_redis_up 0" in (await api.ask("GET", "/metrics"))[1]
            server = start_redis(folder)
            assert (await api.ask("GET", f"/v1/scans/{id_}"))[1]["state"] == "queued"
            await api.submit()
            server.kill()
            server.wait()

    asyncio.run(run())


# ---------------------------------------------------------------- lookups


def test_lookups_answer_what_is_known_and_never_scan(serve):
    async def test(api):
        assert (await api.ask("GET", f"/v1/verdicts?url={URL}"))[1] == {"verdicts": []}
        await remember(api, url=URL, tenant="local")
        sha256 = FORGED.media.sha256
        for query in (f"url={URL}", f"sha256={sha256}"):
            (verdict,) = (await api.ask("GET", f"/v1/verdicts?{query}"))[1]["verdicts"]
            assert (verdict["label"], verdict["cache"]["kind"]) == ("manipulated", "exact")
        keys = [URL, sha256, "f" * 64, URL + "?other", URL]
        _status, answer, _ = await api.ask("POST", "/v1/verdicts/lookup", json={"keys": keys})
        assert [row["key"] for row in answer["rows"]] == keys
        assert [bool(row["known"]) for row in answer["rows"]] == [True, True, False, False, True]
        assert answer["rows"][0]["known"]["score"] == FORGED.score
        assert await api.service.ledger.tally() == {}

    serve(test)


def test_lookups_of_the_same_moment_are_one_round_trip_and_are_not_mixed_up(serve):
    async def test(api):
        await remember(api, url=URL, tenant="local")
        other = await api.token("lookup", tenant="other")
        await api.service.lookups.model_id()
        before = (await api.service.redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]
        sha256 = FORGED.media.sha256
        model = {"tenant": "local", "model_id": MODEL.model_id}
        asked = [api.service.lookups.find(key, **model) for key in [URL, URL + "2", sha256, "f" * 64] * 8]
        found = await asyncio.gather(*asked)
        assert [verdict is not None for verdict in found] == [True, False, True, False] * 8
        assert (await api.service.redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
        path = f"/v1/verdicts?url={URL}"  # kept, but for one tenant
        assert len((await api.ask("GET", path))[1]["verdicts"]) == 1
        assert (await api.ask("GET", path, headers=other))[1] == {"verdicts": []}

    serve(test)


def test_a_perceptual_hash_nominates_with_its_distance(serve):
    async def test(api):
        picture = np.random.default_rng(3).integers(0, 255, (6, 8, 3), np.uint8)
        large = Image.fromarray(picture).resize((640, 480), Image.Resampling.BICUBIC)
        look = Look(np.asarray(large))
        await remember(api)
        await NearTier(api.service.redis, api.service.cache, tenant="local").add(FORGED.media.sha256, look, [])
        code = look.perceptual_hash
        for flipped, known in ((0, True), (0b111, True), (2**20 - 1, False)):
            answer = (await api.ask("GET", f"/v1/verdicts?phash={code ^ flipped:064x}"))[1]["verdicts"]
            wanted = [("near", flipped.bit_count())] if known else []
            assert [(one["cache"]["kind"], one["cache"]["distance"]) for one in answer] == wanted
        other = await api.token("lookup", tenant="other")
        assert (await api.ask("GET", f"/v1/verdicts?phash={code:064x}", headers=other))[1] == {"verdicts": []}

    serve(test)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "url=x",
        "sha256=0",
        f"sha256={'G' * 64}",
        f"phash={'0' * 16}",
        f"url={URL}&sha256={'0' * 64}",
        "who=1",
        f"sha256={'0' * 64}&sha256={'1' * 64}",
    ],
)
def test_a_lookup_names_exactly_one_well_formed_key(serve, query):
    async def test(api):
        status, answer, _ = await api.ask("GET", f"/v1/verdicts?{query}")
        assert (status, code(answer)) == (422, "invalid")

    serve(test)


def test_a_thousand_keys_are_the_most(serve):
    async def test(api):
        for count, status in ((1_000, 200), (1_001, 422)):
            keys = {"keys": [f"{n:064x}" for n in range(count)]}
            assert (await api.ask("POST", "/v1/verdicts/lookup", json=keys))[0] == status

    serve(test)


def test_a_prefix_finds_every_file_that_begins_so(serve):
    async def test(api):
        rng = random.Random(7)
        digests = [f"{rng.getrandbits(256):064x}" for _ in range(40)]
        for sha256 in digests:
            media = msgspec.structs.replace(FORGED.media, sha256=sha256)
            await remember(api, msgspec.structs.replace(FORGED, media=media), tenant="local")
        bits = f"{int(digests[0], 16):0256b}"[:6]
        _status, answer, headers = await api.ask("GET", f"/v1/verdicts/prefix/{bits}")
        wanted = sorted(sha256 for sha256 in digests if f"{int(sha256, 16):0256b}".startswith(bits))
        assert [row["sha256"] for row in answer["matches"]] == wanted
        assert f"max-age={answer['keep_s']}" in headers["Cache-Control"]
        other = await api.token("lookup", tenant="other")
        assert (await api.ask("GET", f"/v1/verdicts/prefix/{bits}", headers=other))[1]["matches"] == []
        for bad in ("01", "012345", "0" * 65):
            assert (await api.ask("GET", f"/v1/verdicts/prefix/{bad}"))[0] == 404

    serve(test)


# ---------------------------------------------------------------- what else is there


def test_ready_means_that_an_engine_has_said_who_it_is(serve):
    async def test(api):
        assert (await api.ask("GET", "/readyz"))[0] == 503
        await api.service.cache.announce(MODEL)
        assert (await api.ask("GET", "/readyz"))[1]["checks"]["engine"] == "test"

    serve(test)


def test_metrics_count_requests_by_route_and_show_what_workers_did(serve):
    async def test(api):
        await api.submit()
        await api.ask("GET", f"/v1/verdicts?url={URL}&secret=hunter2")
        pipe = api.service.redis.pipeline()
        telemetry.observe(pipe, telemetry.QUEUE_WAIT, 0.3, queue="bulk")
        telemetry.count(pipe, telemetry.OUTCOMES, code="manipulated")
        await pipe.execute()
        text = (await api.ask("GET", "/metrics"))[1].decode()
        assert 'laescan_requests_total{method="POST",route="/v1/scans",status="202"} 1.0' in text
        assert 'laescan_queue_wait_seconds_bucket{le="0.5",queue="bulk"} 1.0' in text
        assert 'laescan_outcomes_total{code="manipulated"} 1.0' in text
        assert 'laescan_scans_now{where="interactive"} 1.0' in text
        assert "laescan_workers 0.0" in text
        assert "hunter2" not in text
        assert "example.org" not in text

    serve(test)


def test_the_log_has_routes_but_neither_urls_nor_ids(serve, caplog):
    async def test(api):
        caplog.set_level("DEBUG", logger="api")
        id_ = await api.submit("https://example.org/private.jpg?token=hunter2")
        await api.ask("GET", f"/v1/scans/{id_}?wait=0")
        await api.ask("GET", "/v1/verdicts?url=https://example.org/hunter2.jpg")
        assert "route=/v1/scans/{id} status=200" in caplog.text
        for secret in ("hunter2", "private.jpg", id_):
            assert secret not in caplog.text

    serve(test)


def test_an_age_says_how_old_a_remembered_verdict_is(serve):
    async def test(api):
        old = msgspec.structs.replace(FORGED, cache=CacheInfo("exact", None, 90.0))
        await remember(api, old, url=URL, tenant="local")
        (verdict,) = (await api.ask("GET", f"/v1/verdicts?sha256={FORGED.media.sha256}"))[1]["verdicts"]
        assert verdict["cache"]["age_s"] == pytest.approx(90, abs=20)

    serve(test)
