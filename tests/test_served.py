"""A list through a laescan service: the real API on a real Redis, and what it may answer on bad days."""

import asyncio
import contextlib
import json
import os
import re
import signal
import threading
import time

import msgspec
import pytest
import redis
from aiohttp import web
from service import serving
from test_bulk import rows_of
from verdicts import still

from scanner.bulk import served
from scanner.bulk.book import OtherModelError
from scanner.bulk.plan import ElsewhereError, Plan
from scanner.bulk.run import run
from scanner.cli import main
from scanner.contract import Failure, Outcome
from scanner.service.lease import Lease
from scanner.settings import Settings


@contextlib.contextmanager
def working(url, verdict=None):
    """Do what workers do with the bulk queue: a verdict for each URL, a failure for those that say so."""
    over, settings = threading.Event(), Settings(redis_url=url)

    def work():
        with redis.Redis.from_url(url) as client:
            while not over.is_set():
                for id_ in client.zrange("laescan:queued:bulk", 0, -1):
                    lease = Lease.start(client, id_.decode(), owner="test")
                    if lease is not None:
                        lease.finish(outcome(lease.request.source, verdict), settings)
                time.sleep(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def outcome(source, verdict=None):
    if "gone" in source:
        return Outcome(source=source, failure=Failure("gone", "it answers 404", retryable=False))
    return Outcome(source=source, verdict=verdict or still())


def plan(folder, lines, url, **options):
    (folder / "list.txt").write_text("".join(f"{line}\n" for line in lines))
    return Plan(source=str(folder / "list.txt"), out=folder / "out.jsonl", api=url, **options)


def test_each_row_gets_its_row_whatever_the_service_thinks_of_it(redis_url, tmp_path, monkeypatch):
    monkeypatch.setattr(served, "BATCH_ROWS", 7)
    urls = [f"https://example.org/{n}.jpg" for n in range(20)]
    lines = [*urls, urls[0], "https://exa mple.org/", "https://example.org/gone.jpg", "a/file.jpg", f"{urls[1]}#again"]

    async def test():
        async with serving(Settings(redis_url=redis_url, max_batch_urls=5, access="token", batches_per_min=600)) as api:
            token = (await api.token("bulk"))["Authorization"].partition(" ")[2]
            made = plan(tmp_path, lines, api.url, token=token)
            return await run(made, Settings())

    with working(redis_url):
        summary = asyncio.run(asyncio.wait_for(test(), 90))
    rows = rows_of(tmp_path / "out.jsonl")
    assert (summary.rows, sorted(rows)) == (25, list(range(1, 26)))
    assert {n: row["code"] for n, row in rows.items() if row["code"]} == {
        22: "bad_source",
        23: "gone",
        24: "bad_source",
    }
    assert {row["model_id"] for row in rows.values() if row["label"]} == {"test"}
    assert "files" in rows[24]["message"]


def test_killed_it_finds_what_the_service_has_done_meanwhile(redis_url, tmp_path):
    lines = [f"https://example.org/again/{n}.jpg" for n in range(30)]

    async def test():
        async with serving(Settings(redis_url=redis_url)) as api:
            made = plan(tmp_path, lines, api.url)
            first = asyncio.create_task(run(made, Settings()))
            while not await api.service.redis.zcard("laescan:queued:bulk"):  # noqa: ASYNC110 - Redis tells by being asked
                await asyncio.sleep(0.02)
            first.cancel()  # nothing of the journal is written but that it began
            with contextlib.suppress(asyncio.CancelledError):
                await first
            with working(redis_url):
                summary = await run(made, Settings())
            batches = [key async for key in api.service.redis.scan_iter("laescan:batch:*:members")]
            return summary, len(batches)

    before = len(redis.Redis.from_url(redis_url).keys("laescan:batch:*:members"))
    summary, batches = asyncio.run(asyncio.wait_for(test(), 90))
    assert (summary.rows, summary.finished, batches - before) == (30, True, 1)


def test_interrupted_it_tells_how_to_cancel_what_is_out(redis_url, tmp_path, caplog):
    lines = [f"https://example.org/interrupted/{n}.jpg" for n in range(30)]

    async def test():
        async with serving(Settings(redis_url=redis_url)) as api:
            started = asyncio.create_task(run(plan(tmp_path, lines, api.url), Settings()))
            while "results status=200" not in caplog.text:  # noqa: ASYNC110 - then it is out, and its rows are asked for
                await asyncio.sleep(0.02)
            os.kill(os.getpid(), signal.SIGINT)
            summary = await started
            (path,) = re.findall(r"DELETE (/v1/batches/\w+) cancels", caplog.text)
            before = (await api.service.ledger.depths())["bulk"]
            status, _, _ = await api.ask("DELETE", path)
            return summary.finished, status, before, (await api.service.ledger.depths())["bulk"]

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with caplog.at_level("DEBUG", "api"), caplog.at_level("DEBUG", "scanner"):  # levels of their own, where one was set
        assert asyncio.run(asyncio.wait_for(test(), 90)) == (False, 200, 30, 0)


def test_a_service_that_changed_its_model_is_told_of(redis_url, tmp_path):
    async def test(lines, **options):
        async with serving(Settings(redis_url=redis_url)) as api:
            return await run(plan(tmp_path, lines, api.url, **options), Settings())

    lines = ["https://example.org/model/1.jpg"]
    with working(redis_url):
        asyncio.run(asyncio.wait_for(test(lines), 60))
    newer = msgspec.structs.replace(still(), model=msgspec.structs.replace(still().model, model_id="newer"))
    lines.append("https://example.org/model/2.jpg")
    with working(redis_url, newer):
        with pytest.raises(OtherModelError, match="--keep"):
            asyncio.run(asyncio.wait_for(test(lines), 60))
        summary = asyncio.run(asyncio.wait_for(test(lines, keep=True), 60))
    assert [row["model_id"] for row in rows_of(tmp_path / "out.jsonl").values()] == ["test", "newer"]
    assert summary.rows == 2


# ---------------------------------------------------------------- bad days


class Moody:
    """A service that answers as its script says before it does its work."""

    def __init__(self, *script):
        self.script, self.batches, self.asked = list(script), {}, []

    async def submit(self, request):
        self.asked.append(time.monotonic())
        if self.script:
            status, headers = self.script.pop(0)
            return web.json_response({"error": {"message": "not now"}}, status=status, headers=headers)
        body = await request.json()
        id_ = f"b{len(self.batches)}"
        self.batches[id_] = body["urls"]
        return web.json_response({"id": id_}, status=202)

    async def results(self, request):
        id_, after = request.match_info["id"], int(request.query["after"])
        if id_ == "b0":  # restarted without its memory
            raise web.HTTPNotFound
        forgotten = id_ == "b1"
        lines = [
            {"position": at, "source": url, "state": "forgotten" if forgotten else "done"}
            | ({} if forgotten else {"outcome": msgspec.to_builtins(outcome(url))})
            for at, url in enumerate(self.batches[id_])
        ]
        return web.Response(text="".join(json.dumps(line) + "\n" for line in lines[after:]))

    async def serve(self):
        app = web.Application()
        app.add_routes([web.post("/v1/batches", self.submit), web.get("/v1/batches/{id}/results", self.results)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"


def test_a_full_queue_a_restart_and_a_lost_memory_cost_time_only(tmp_path, monkeypatch):
    monkeypatch.setattr(served, "FIRST_WAIT_S", 0.05)
    moody = Moody((503, {"Retry-After": "0.5"}), (429, {"Retry-After": "0.5"}))

    async def test():
        runner, url = await moody.serve()
        try:
            return await run(plan(tmp_path, [f"https://example.org/{n}.jpg" for n in range(9)], url), Settings())
        finally:
            await runner.cleanup()

    summary = asyncio.run(asyncio.wait_for(test(), 60))
    assert (summary.rows, summary.counts) == (9, {still().label: 9})
    assert len(moody.batches) == 3  # forgotten, then its rows forgotten, then done
    assert all(later - sooner >= 0.5 for sooner, later in zip(moody.asked[:2], moody.asked[1:3], strict=True))


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "--token-file"), (403, "scope `bulk`"), (404, "no laescan service"), (301, "no answer of")],
)
def test_a_service_that_will_never_take_it_ends_the_run(tmp_path, status, words):
    async def test():
        runner, url = await Moody((status, {})).serve()
        try:
            await run(plan(tmp_path, ["https://example.org/1.jpg"], url), Settings())
        finally:
            await runner.cleanup()

    with pytest.raises(ElsewhereError, match=words):
        asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("source", "https://example.org/another.jpg", "row 1 of a batch for another address"),
        ("outcome.verdict.media.size_bytes", 2**64, "larger than any"),
        ("outcome.verdict.media.width", -1, "larger than any"),
        ("outcome.verdict.media.sha256", "no digest", "SHA-256"),
        ("outcome.verdict.score", 7.0, "score of 7.0"),
        ("outcome.verdict", None, "either a verdict or a failure"),
    ],
)
def test_what_no_row_can_hold_ends_the_run_in_words_and_the_rows_before_are_kept(tmp_path, path, value, words):
    """SQLite, Parquet and MessagePack end at 2^63, a histogram at 1."""

    class Lying(Moody):
        async def results(self, request):
            urls = self.batches[request.match_info["id"]]
            rows = [
                {"position": at, "source": url, "state": "done", "outcome": msgspec.to_builtins(outcome(url))}
                for at, url in enumerate(urls)
            ]
            *parts, last = path.split(".")
            liar = rows[1]
            for part in parts:
                liar = liar[part]
            liar[last] = value
            return web.Response(text="".join(json.dumps(row) + "\n" for row in rows))

    async def test():
        runner, url = await Lying().serve()
        try:
            await run(plan(tmp_path, [f"https://example.org/{n}.jpg" for n in range(2)], url), Settings())
        finally:
            await runner.cleanup()

    with pytest.raises(ElsewhereError, match=words):
        asyncio.run(asyncio.wait_for(test(), 60))
    assert list(rows_of(tmp_path / "out.jsonl")) == [1]


def test_on_the_command_line(tmp_path, capsys):
    made = plan(tmp_path, ["https://example.org/1.jpg"], "")
    (tmp_path / "token").write_text("lae_x\n")
    for extra, code, words in (
        (["--api", "ftp://x"], 4, "give the address of a service"),
        (["--api", "http://127.0.0.1:1"], 4, "does not answer"),
        (["--api", "http://127.0.0.1:1", "--token-file", str(tmp_path / "none")], 2, "cannot read"),
        (["--token-file", str(tmp_path / "token")], 2, "a token is for --api"),
    ):
        assert main(["bulk", made.source, "-o", str(made.out), *extra]) == code
        assert words in capsys.readouterr().err
