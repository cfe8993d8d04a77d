"""Lists over real HTTP: accepted in order, repeated, cut short, counted, read and cancelled."""

import asyncio
from urllib.parse import urlsplit

import msgspec
import pytest
import redis
from redis_server import start_redis
from service import URL, serving
from test_api import FORGED, code

from api import batches
from scanner.service.embedded import socket_url
from scanner.settings import Settings


def test_a_batch_has_one_row_for_each_line_in_its_order(serve):
    async def test(api):
        urls = [f"https://example.org/{n % 40}.jpg" for n in range(50)]  # ten of them twice
        status, batch, headers = await api.ask("POST", "/v1/batches", json={"urls": urls})
        assert (status, batch["count"], batch["states"]) == (202, 50, {"queued": 50})
        lines = (await api.ask("GET", batch["results"]))[1].splitlines()
        rows = [msgspec.json.decode(line) for line in lines]
        assert [row["source"] for row in rows] == urls
        assert [row["position"] for row in rows] == list(range(50))
        assert len({row["scan"] for row in rows}) == 40
        api.finish(rows[3]["scan"], FORGED)
        assert (await api.ask("GET", headers["Location"]))[1]["states"] == {"queued": 48, "done": 2}
        rest = (await api.ask("GET", batch["results"] + "?after=43"))[1].splitlines()
        assert msgspec.json.decode(rest[0])["outcome"]["verdict"]["label"] == "manipulated"
        assert (await api.service.ledger.depths())["interactive"] == 0

    serve(test)


def test_a_repeated_batch_is_the_same_batch(serve):
    async def test(api):
        headers = {"Idempotency-Key": "list-7"}
        first = await api.ask("POST", "/v1/batches", json={"urls": [URL]}, headers=headers)
        again = await api.ask("POST", "/v1/batches", json={"urls": [URL]}, headers=headers)
        assert first[1] == again[1]
        assert (await api.ask("POST", "/v1/batches", json={"urls": [URL + "2"]}, headers=headers))[0] == 409

    serve(test)


def test_a_batch_that_redis_cut_short_and_that_is_sent_again_has_each_row_at_its_place(serve, monkeypatch):
    monkeypatch.setattr(batches, "ACCEPTED_AT_ONCE", 4)
    urls, headers = [f"https://example.org/{n}.jpg" for n in range(10)], {"Idempotency-Key": "list-8"}

    async def test(api):
        accept, calls = api.service.ledger.accept_many, []

        async def accept_but_for_the_second(requests):
            calls.append(len(requests))
            if len(calls) == 2:
                raise redis.exceptions.TimeoutError
            return await accept(requests)

        monkeypatch.setattr(api.service.ledger, "accept_many", accept_but_for_the_second)
        assert (await api.ask("POST", "/v1/batches", json={"urls": urls}, headers=headers))[0] == 503
        status, batch, _ = await api.ask("POST", "/v1/batches", json={"urls": urls}, headers=headers)
        assert (status, batch["states"], calls) == (202, {"queued": 10}, [4, 4, 4, 4, 2])
        rows = [msgspec.json.decode(line) for line in (await api.ask("GET", batch["results"]))[1].splitlines()]
        assert [(row["position"], row["source"]) for row in rows] == list(enumerate(urls))
        assert len({row["scan"] for row in rows}) == 10

    serve(test)


def test_a_batch_that_is_deleted_ends_what_it_alone_asked_for_and_is_forgotten(serve, monkeypatch):
    monkeypatch.setattr(batches, "ACCEPTED_AT_ONCE", 4)

    async def test(api):
        urls = [f"https://example.org/{n}.jpg" for n in range(10)]
        _, batch, headers = await api.ask("POST", "/v1/batches", json={"urls": urls})
        rows = [msgspec.json.decode(line) for line in (await api.ask("GET", batch["results"]))[1].splitlines()]
        api.finish(rows[0]["scan"], FORGED)
        running = api.begin(rows[1]["scan"])
        assert await api.submit(urls[2]) == rows[2]["scan"], "somebody waits for this one"
        other = await api.token("bulk", tenant="other")
        assert (await api.ask("DELETE", headers["Location"], headers=other))[0] == 404
        status, last, _ = await api.ask("DELETE", headers["Location"])
        assert (status, last["states"]) == (200, {"done": 1, "cancelled": 8, "queued": 1})
        assert not running.progress("fetch", None), "its worker may write no more"
        running.client.close()
        assert (await api.service.ledger.depths()) == {"interactive": 1, "bulk": 0, "running": 0}
        for method, path in (("GET", headers["Location"]), ("GET", batch["results"]), ("DELETE", headers["Location"])):
            assert (await api.ask(method, path))[0] == 404
        assert await api.service.redis.keys("laescan:batch:*") == []
        assert (await api.ask("GET", f"/v1/scans/{rows[0]['scan']}"))[1]["state"] == "done"

    serve(test)


def test_a_key_that_was_forgotten_before_its_batch_names_no_other_list(serve):
    async def test(api):
        headers = {"Idempotency-Key": "list-9"}
        await api.ask("POST", "/v1/batches", json={"urls": [URL]}, headers=headers)
        for claim in await api.service.redis.keys("laescan:claim:*"):  # after a day
            await api.service.redis.delete(claim)
        _, batch, _ = await api.ask("POST", "/v1/batches", json={"urls": [URL + "2"]}, headers=headers)
        (line,) = (await api.ask("GET", batch["results"]))[1].splitlines()
        assert msgspec.json.decode(line)["source"] == URL + "2"

    serve(test)


def test_a_bad_line_names_its_place_and_nothing_is_taken(serve):
    async def test(api):
        for bad in ("nonsense", "https:///"):
            status, answer, _ = await api.ask("POST", "/v1/batches", json={"urls": [URL, bad]})
            assert (status, code(answer)) == (422, "invalid")
            assert "urls[" in answer["error"]["message"]
        assert (await api.ask("POST", "/v1/batches", json={"urls": []}))[0] == 422
        assert (await api.ask("POST", "/v1/batches", json={"urls": [URL, URL + "2", URL + "3"]}))[0] == 422
        assert await api.service.ledger.tally() == {}

    serve(test, max_batch_urls=2)


async def raw(url):
    """All that a server sends for a GET until it hangs up."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    sent = await reader.read()
    writer.close()
    return sent


@pytest.mark.parametrize("fault", ["redis goes away", "the batch is deleted"])
def test_results_that_break_off_are_cut_and_neither_ended_nor_answered_twice(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(batches, "READ_AT_ONCE", 4)
    members, server = batches._members, start_redis(tmp_path / "redis")

    async def break_off(service, id_, start, count):
        if start and fault == "redis goes away":
            server.kill()
            server.wait()
        elif start:
            await service.redis.delete(f"{batches.PREFIX}{id_}", f"{batches.PREFIX}{id_}:members")
        return await members(service, id_, start, count)

    async def test():
        settings = Settings(redis_url=socket_url(tmp_path / "redis"), spool=str(tmp_path / "spool"))
        async with serving(settings) as api:
            urls = [f"https://example.org/{n}.jpg" for n in range(10)]
            _, batch, _ = await api.ask("POST", "/v1/batches", json={"urls": urls})
            monkeypatch.setattr(batches, "_members", break_off)
            sent = await raw(api.url + batch["results"])
            assert sent.startswith(b"HTTP/1.1 200 ")
            assert sent.count(b"HTTP/1.1 ") == 1, "another answer in the middle of this one"
            assert sent.count(b'"position":') == 4, "what was read before is there"
            assert not sent.endswith(b"0\r\n\r\n"), "as if these were all"

    try:
        asyncio.run(test())
    finally:
        server.kill()
        server.wait()
