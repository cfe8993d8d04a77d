"""Pieces of a list on workers: as a function, and over a real Redis by processes that are killed."""

import asyncio
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import redis
from bulk_site import NETWORK, Site, picture
from engines import ForkedEngine
from PIL import Image
from redis_server import redis_in, start_redis
from rq.job import Job
from rq.serializers import JSONSerializer
from test_bulk import QUICK, Glimpse, rows_of

from scanner.bulk.book import OtherModelError
from scanner.bulk.dispatch import Item
from scanner.bulk.lists import Entry
from scanner.bulk.plan import ElsewhereError, Plan
from scanner.bulk.polite import Patience, Policy
from scanner.bulk.queued import QueueDispatch
from scanner.bulk.run import run
from scanner.bulk.shard_worker import ShardWorker, _engine, scan
from scanner.bulk.shards import Answer, Shard, rows_key, scan_shard
from scanner.engine.client import EngineClient
from scanner.service import jobs
from scanner.service.embedded import socket_url
from scanner.settings import Settings

WORKER = """
import asyncio, os, sys
import redis
from test_bulk import QUICK, Glimpse
from scanner.settings import Settings
from scanner.bulk.shard_worker import ShardWorker
settings = Settings(**QUICK, redis_url=sys.argv[1])
ShardWorker(redis.Redis.from_url(sys.argv[1]), settings, Glimpse(seconds=0.1)).work(logging_level=None)
"""


@pytest.fixture(scope="module")
def site():
    with Site({f"{number}.jpg": picture(number) for number in range(60)}) as opened:
        yield opened


def test_shard_to_rows_is_a_function(site):
    sources = [site.url("1.jpg"), "nothing.jpg", site.url("1.jpg"), site.url("2.jpg")]
    rows = scan_shard(sources, settings=Settings(**QUICK), model=Glimpse(), patience=Patience(retries=0))
    assert [row["source"] for row in rows] == sources
    assert [row["code"] for row in rows] == [None, "gone", None, None]
    assert all(isinstance(row["score"], float) for row in rows if row["code"] is None)


def started(url, folder, stderr=None):
    here = Path(__file__).parent
    environ = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}", "TMPDIR": str(folder)}
    return subprocess.Popen([sys.executable, "-c", WORKER, url], env=environ, stderr=stderr)


def test_workers_scan_a_list_and_one_that_dies_loses_nothing(site, tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.bulk.queued._LOST_S", 5.0)  # enough for the first beat of a worker on a busy machine
    monkeypatch.setattr("scanner.bulk.queued._CHECK_S", 0.5)
    monkeypatch.setattr("scanner.bulk.queued.SHARD_ROWS", 40)
    urls = [site.url(f"{n}.jpg?{again}") for again in range(4) for n in range(60)]
    (tmp_path / "list.txt").write_text("\n".join([*urls, "no url", urls[0]]))
    with redis_in(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:
        workers = [started(url, tmp_path) for _ in range(2)]
        plan = Plan(source=str(tmp_path / "list.txt"), out=tmp_path / "out.jsonl", queue=url)
        settings = Settings(**{**QUICK, "allow_networks": (NETWORK,)})

        async def scan():
            running = asyncio.create_task(run(plan, settings))
            async with asyncio.timeout(60):
                while not (tmp_path / "out.jsonl").exists() or not (tmp_path / "out.jsonl").read_bytes():
                    await asyncio.sleep(0.05)
                    assert not running.done() or await running
            workers[0].send_signal(signal.SIGKILL)
            for key in client.scan_iter("*:beat"):
                client.expire(key, 1)  # as if its time were over; a living worker renews it
            return await running

        try:
            summary = asyncio.run(asyncio.wait_for(scan(), 120))
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        rows = rows_of(tmp_path / "out.jsonl")
        assert sorted(rows) == list(range(1, 243))
        assert summary.rows == 242
        assert [number for number, row in rows.items() if row["code"]] == [241]
        assert not list(client.scan_iter("laescan:bulk:*"))


def test_without_a_redis_it_says_so(tmp_path):
    (tmp_path / "list.txt").write_text("x.jpg\n")
    plan = Plan(source=str(tmp_path / "list.txt"), out=tmp_path / "out.jsonl", queue=f"unix://{tmp_path}/none")
    with pytest.raises(ElsewhereError, match="no Redis answers"):
        asyncio.run(run(plan, Settings()))


def shard_of(*sources):
    entries = [Entry(row, source) for row, source in enumerate(sources, 1)]
    kept_to = {"policy": Policy(), "patience": Patience(retries=0), "with_hash": False, "respect_noai": False}
    return Shard(run="r", id="s", entries=entries, user_agent="test", **kept_to)


def test_a_worker_is_on_the_roll_while_it_scans_however_long_that_takes(site, tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.bulk.shard_worker.BEAT_S", 0.02)
    shard = shard_of(site.url("1.jpg"))
    with redis_in(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:

        class Slow(Glimpse):
            async def look(self, frames, *, urgent=True):
                client.expire(worker.key, 10)  # as if 80 of the 90 seconds were over
                async with asyncio.timeout(20):
                    while client.ttl(worker.key) <= 10:  # noqa: ASYNC110 - it is another process that is told
                        await asyncio.sleep(0.01)
                return await super().look(frames, urgent=urgent)

        worker = ShardWorker(client, Settings(**QUICK, redis_url=url), Slow())
        client.set(shard.key, msgspec.msgpack.encode(shard))
        job = Job.fetch(jobs.put_shard(shard.key, client), connection=client, serializer=JSONSerializer)
        worker.execute_job(job, None)
        (answer,) = client.lrange(rows_key("r"), 0, -1)
        assert msgspec.msgpack.decode(answer, type=Answer).result.code is None


def test_a_worker_scores_as_many_frames_as_who_holds_the_list_asks_for(tmp_path):
    rng, sink = np.random.default_rng(1), io.BytesIO()
    pictures = [Image.fromarray(rng.integers(0, 255, (64, 64), np.uint8)) for _ in range(8)]
    pictures[0].save(sink, "GIF", save_all=True, append_images=pictures[1:], duration=500)
    with (
        Site({"8.gif": sink.getvalue()}) as site,
        redis_in(tmp_path / "redis") as url,
        redis.Redis.from_url(url) as client,
    ):
        settings = msgspec.structs.replace(Settings(**QUICK), max_frames=3)
        ways = {"policy": Policy(), "patience": Patience(), "with_hash": False, "unlimited": bool, "judged_by": str}
        queue = QueueDispatch(None, client, None, settings, **ways)
        queue._put([Item(Entry(1, site.url("8.gif")), b"key")])
        (key,) = client.scan_iter("laescan:bulk:*:shard:*")
        worker = Settings(**QUICK, redis_url=url)
        asyncio.run(scan(client, key.decode(), worker, Glimpse(), beat=lambda: None))
        (answer,) = client.lrange(rows_key(queue._run), 0, -1)
        assert msgspec.msgpack.decode(answer, type=Answer).result.frames == 3


def test_rows_of_a_list_that_was_scored_by_fewer_frames_do_not_stand_for_others(site, tmp_path):
    (tmp_path / "list.txt").write_text(site.url("1.jpg"))
    with redis_in(tmp_path / "redis") as url:
        plan = Plan(source=str(tmp_path / "list.txt"), out=tmp_path / "out.jsonl", queue=url)
        worker = started(url, tmp_path)
        try:
            asyncio.run(asyncio.wait_for(run(plan, Settings(**QUICK)), 60))
            with (tmp_path / "list.txt").open("a") as file:
                file.write("\n" + site.url("2.jpg"))
            with pytest.raises(OtherModelError, match="fake,max_frames=3"):
                asyncio.run(asyncio.wait_for(run(plan, Settings(**{**QUICK, "max_frames": 3})), 60))
        finally:
            worker.kill()
            worker.wait()


def test_the_rows_of_a_dead_worker_go_out_again_though_other_lists_wait(tmp_path, monkeypatch):
    monkeypatch.setattr("scanner.bulk.queued._LOST_S", 0.0)
    with redis_in(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:
        ways = {"policy": Policy(), "patience": Patience(), "with_hash": False, "unlimited": bool, "judged_by": str}
        ours = QueueDispatch(None, client, None, Settings(), **ways)
        ours._put([Item(Entry(1, "https://a.example/1.jpg"), b"key")])
        (taken,) = jobs.shards_waiting(client)
        client.lrem("rq:queue:shards", 1, taken)  # by a worker that died before its first beat
        theirs = jobs.put_shard("of another list", client)
        for _ in range(2):  # once it waits again it stays where it is
            ours._check()
            (again,) = jobs.shards_waiting(client) - {theirs}
            assert ours.in_flight == 1
            assert [out.job for out in ours._out.values()] == [again]


def put(client, site, name, count):
    entries = [Entry(row, site.url(f"{row % 60}.jpg?{name}")) for row in range(1, count + 1)]
    shard = msgspec.structs.replace(shard_of(), run=name, entries=entries)
    client.set(shard.key, msgspec.msgpack.encode(shard))
    jobs.put_shard(shard.key, client)


def rows_come(client, name, count):
    deadline = time.monotonic() + 60
    while client.llen(rows_key(name)) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_worker_that_is_asked_to_stop_ends_its_piece_first(site, tmp_path):
    with redis_in(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:
        worker = started(url, tmp_path)
        try:
            for name in ("first", "second"):
                put(client, site, name, 200)
            rows_come(client, "first", 1)
            worker.terminate()
            assert worker.wait(60) == 0
        finally:
            worker.kill()
        assert client.llen(rows_key("first")) == 200
        assert client.llen(rows_key("second")) == 0


def test_a_worker_outlives_its_redis(site, tmp_path):
    server = start_redis(tmp_path / "redis")
    url, said = socket_url(tmp_path / "redis"), tmp_path / "said"
    with said.open("w") as stderr:
        worker = started(url, tmp_path, stderr=stderr)
    try:
        with redis.Redis.from_url(url) as client:
            put(client, site, "first", 400)
            rows_come(client, "first", 1)
            server.kill()
            server.wait()
            deadline = time.monotonic() + 60
            while "Redis is away, waiting for it" not in said.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            server = start_redis(tmp_path / "redis")
            put(client, site, "second", 5)
            rows_come(client, "second", 5)
        assert worker.poll() is None
    finally:
        for process in (worker, server):
            process.kill()
            process.wait()


def test_a_worker_whose_engine_cannot_be_started_ends_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with (
        pytest.raises(FileNotFoundError, match="nowhere"),
        _engine(Settings(engine_socket=str(tmp_path / "engine.sock"))),
    ):
        pytest.fail("there is no engine")


def test_a_worker_uses_the_engine_of_its_machine(tmp_path):
    path = tmp_path / "engine.sock"
    forked = ForkedEngine(path, seconds=0.0)
    EngineClient.open(Settings(), path=path)
    with _engine(Settings(engine_socket=str(path))) as model:
        assert model.info.model_id == "fake"
    assert forked.end(signal.SIGTERM) == 0


def _scanned(urls):
    return scan_shard(urls, settings=Settings(**QUICK), model=Glimpse())


def test_pieces_may_be_scanned_in_processes_of_any_pool(site):
    """What Ray and Spark do: send a function and a piece of the list to another process, and take the rows back."""
    urls = [site.url(f"{n}.jpg") for n in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        pieces = list(pool.map(_scanned, [urls[:2], urls[2:]]))
    assert [row["source"] for piece in pieces for row in piece] == urls
    assert not [row["code"] for piece in pieces for row in piece if row["code"]]
