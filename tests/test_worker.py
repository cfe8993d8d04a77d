"""Real workers on a real Redis, killed at the worst moments: each accepted scan ends in exactly one outcome."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crew import Crew, children, is_alive, until
from origin import Origin, jpeg
from redis_server import start_redis
from rq.job import Job
from rq.serializers import JSONSerializer

from scanner.cache.failures import Failures
from scanner.service import jobs, telemetry
from scanner.service import worker as service_worker
from scanner.service.lease import Lease, take_due
from scanner.service.pulse import Pulse
from scanner.service.reconciler import Reconciler
from scanner.service.stable import Stable
from scanner.settings import Settings


@pytest.fixture(scope="module")
def crew(tmp_path_factory):
    with Crew(tmp_path_factory.mktemp("c"), drain_s=5, min_rate_bytes_per_s=1) as crew:
        yield crew


@pytest.fixture(scope="module")
def origin():
    server = Origin()
    server.answer("/a.jpg", jpeg())

    async def stall(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n\xff\xd8")
        while True:  # a little all the time, or the scan would end by itself in the middle of a test
            await writer.drain()
            await asyncio.sleep(0.5)
            writer.write(bytes(10))

    server.routes["/stalls.jpg"] = stall
    yield server
    server.close()


@pytest.fixture
def worker(crew):
    """One worker, ready; all workers of the test are gone after it."""
    worker = crew.hire()
    crew.horse(worker)
    yield worker
    crew.dismiss()
    crew.redis.flushall()


def running(crew, id_):
    """Wait until a worker has it and its horse has said so."""
    return until(lambda: (row := crew.row(id_)).stage and row)


def test_a_url_becomes_a_verdict_with_its_report_and_is_counted(crew, origin, worker) -> None:
    row = crew.ended(crew.scan(origin.url("/a.jpg")))
    assert (row.state, row.attempt, row.outcome.source) == ("done", 1, origin.url("/a.jpg"))
    assert row.outcome.verdict.media.format == "jpeg"
    for name, start in (("report.html", b"<!doctype html"), ("overlay.jpg", b"\xff\xd8"), ("plain.jpg", b"\xff\xd8")):
        assert crew.redis.hget(f"laescan:artifact:{row.id}", name).lower().startswith(start)
    counted = until(lambda: telemetry.read(crew.redis.hgetall(telemetry.KEY)))
    assert {one.name for one in counted} == {
        telemetry.QUEUE_WAIT, telemetry.SERVICE, telemetry.STAGE, telemetry.OUTCOMES, telemetry.CACHE
    }  # fmt: skip


def test_an_upload_is_found_in_the_spool_by_its_digest(crew, worker) -> None:
    (crew.folder / "spool").mkdir(exist_ok=True)
    (crew.folder / "spool" / "d1").write_bytes(jpeg())
    row = crew.ended(crew.scan(upload="d1", name="me.jpg"))
    assert (row.state, row.source, row.outcome.source) == ("done", "me.jpg", "me.jpg")


def test_what_is_wrong_with_the_source_is_the_outcome(crew, origin, worker) -> None:
    row = crew.ended(crew.scan(origin.url("/nowhere.jpg")))
    assert (row.state, row.outcome.failure.code, row.attempt) == ("failed", "gone", 1)


def test_neither_worker_nor_horse_loads_torch(crew, origin, worker) -> None:
    crew.ended(crew.scan(origin.url("/a.jpg")))
    for pid in (worker.pid, crew.horse(worker)):
        assert "torch" not in Path(f"/proc/{pid}/maps").read_text()


def test_a_killed_horse_costs_an_attempt_not_the_scan(crew, origin, worker) -> None:
    id_ = crew.scan(origin.url("/stalls.jpg"))
    running(crew, id_)
    brood = children(crew.horse(worker))
    os.kill(crew.horse(worker), signal.SIGKILL)
    until(lambda: crew.row(id_).attempt == 2)
    until(lambda: not any(is_alive(pid) for pid in brood))  # the jail goes with it
    assert worker.poll() is None
    crew.ask(lambda ledger: ledger.cancel(id_, tenant="t"))
    assert crew.tally()["requeued"] == 1


class Unseen(Stable):
    """Its horse dies right after it was listened to, each time."""

    def _start(self):
        self._connection, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        self._pulse = Pulse(self._process.pid)

    def heard(self, timeout_s):  # noqa: ARG002 - a Stable's
        word = super().heard(0.0)
        self.theirs.close()
        self._process.kill()
        self._process.communicate()
        return word


def test_a_horse_that_dies_between_two_looks_costs_an_attempt_too_not_the_whole_time_of_a_scan(
    crew, monkeypatch
) -> None:
    monkeypatch.setattr(service_worker, "_TELL_EVERY_S", 0.0)
    settings = Settings(redis_url=crew.url, scan_timeout_s=3.0)
    worker, id_ = service_worker.Worker(crew.redis, settings), crew.scan("http://127.0.0.5/x.jpg")
    worker._stable = Unseen(settings)
    worker.scan(id_)
    assert (crew.row(id_).state, crew.row(id_).attempt) == ("queued", 1)
    assert crew.tally()["requeued"] == 1
    crew.redis.flushall()


def test_a_killed_workers_scan_is_taken_up_by_another_and_its_horse_is_dead(crew, origin, worker) -> None:
    id_ = crew.scan(origin.url("/stalls.jpg"))
    running(crew, id_)
    horse = crew.horse(worker)
    worker.kill()
    worker.wait()
    until(lambda: not is_alive(horse))
    origin.routes["/stalls.jpg"], stalled = origin.routes["/a.jpg"], origin.routes["/stalls.jpg"]
    crew.let_lease_end(id_)
    crew.hire()
    row = crew.ended(id_)
    origin.routes["/stalls.jpg"] = stalled
    assert (row.state, row.attempt) == ("done", 2)
    assert crew.tally() == {"accepted": 1, "requeued": 1, "done": 1}


def test_what_kills_three_workers_is_poisoned_and_the_others_go_on(crew, origin, worker) -> None:
    id_ = crew.scan(origin.url("/stalls.jpg"))
    for attempt in (1, 2, 3):
        until(lambda attempt=attempt: (row := crew.row(id_)).attempt == attempt and row.stage)
        os.kill(crew.horse(worker), signal.SIGKILL)
    row = crew.ended(id_)
    assert (row.state, row.outcome.failure.code, row.attempt) == ("failed", "poisoned", 3)
    assert crew.ended(crew.scan(origin.url("/a.jpg"))).state == "done"


def test_cancelling_kills_the_horse_soon_and_frees_the_worker(crew, origin, worker) -> None:
    id_ = crew.scan(origin.url("/stalls.jpg"))
    running(crew, id_)
    horse = crew.horse(worker)
    crew.ask(lambda ledger: ledger.cancel(id_, tenant="t"))
    until(lambda: not is_alive(horse))
    assert crew.ended(crew.scan(origin.url("/a.jpg"))).state == "done"
    assert crew.row(id_).state == "cancelled"


def test_a_cancelled_scan_in_the_queue_is_never_begun(crew, origin) -> None:
    id_ = crew.scan(origin.url("/a.jpg"))
    crew.ask(lambda ledger: ledger.cancel(id_, tenant="t"))
    origin.requests.clear()
    crew.hire()
    assert crew.ended(crew.scan(origin.url("/nowhere.jpg"))).state == "failed"
    crew.dismiss()
    assert [path for path, _ in origin.requests] == ["/nowhere.jpg"]
    crew.redis.flushall()


def test_a_worker_told_to_stop_ends_its_scan_and_told_twice_gives_it_back(crew, origin, worker) -> None:
    id_ = crew.scan(origin.url("/stalls.jpg"))
    running(crew, id_)
    worker.terminate()
    until(lambda: any(crew.redis.hexists(key, "shutdown_requested_date") for key in crew.redis.keys("rq:worker:*")))
    time.sleep(1.1)  # rq takes a second signal within a second after this date for an echo of the first
    assert (worker.poll(), crew.row(id_).state) == (None, "running")
    worker.terminate()
    assert worker.wait(30) == 0
    row = crew.row(id_)
    assert (row.state, row.attempt, row.position) == ("queued", 0, 0)
    assert jobs.waiting("interactive", crew.redis) == {id_}


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "scanner.service.jobs.scan_shard"])
def test_a_job_that_names_another_function_is_refused_and_counted(crew, origin, worker, name: str) -> None:
    mark = crew.folder / "was-here"
    job = Job.create(name, args=(f"touch {mark}",), connection=crew.redis, serializer=JSONSerializer)
    jobs.queue("interactive", crew.redis).enqueue_job(job)
    assert crew.ended(crew.scan(origin.url("/a.jpg"))).state == "done"
    assert not mark.exists()
    assert crew.tally()["refused_jobs"] == 1


def test_a_pickle_in_the_queue_is_refused(crew, origin, worker) -> None:
    jobs.queue("interactive", crew.redis).enqueue_job(
        Job.create("os.system", args=("true",), connection=crew.redis)  # rq's default serializer: pickle
    )
    assert crew.ended(crew.scan(origin.url("/a.jpg"))).state == "done"
    assert crew.tally()["refused_jobs"] == 1


def test_what_was_accepted_outlives_a_killed_redis(crew, origin) -> None:
    ids = [crew.scan(origin.url(f"/a.jpg?{n}")) for n in range(20)]
    crew.kill_redis()
    crew.server = start_redis(crew.folder / "redis")
    crew.hire()
    assert {crew.ended(id_).state for id_ in ids} == {"done"}
    assert crew.tally()["done"] == 20
    crew.dismiss()
    crew.redis.flushall()


def test_a_redis_that_dies_under_running_scans_comes_back_to_all_of_them(crew, origin, worker) -> None:
    ids = [crew.scan(origin.url(f"/a.jpg?{n}")) for n in range(10)]
    until(lambda: crew.row(ids[0]).state != "queued")
    crew.kill_redis()
    crew.server = start_redis(crew.folder / "redis")

    def have_ended():
        if crew.workers[-1].poll() is not None:  # it may end, its supervisor starts another
            for id_ in ids:
                crew.let_lease_end(id_)
            crew.hire()
        return all(crew.row(id_).is_terminal for id_ in ids)

    until(have_ended)
    assert {crew.row(id_).state for id_ in ids} == {"done"}


def test_a_row_without_a_job_gets_one_once_it_is_sure_to_be_lost(crew, origin) -> None:
    reconciler = Reconciler(crew.redis, Settings())
    id_ = crew.scan(origin.url("/a.jpg"))
    crew.redis.delete("rq:queue:interactive")
    reconciler.reconcile()
    assert jobs.waiting("interactive", crew.redis) == set()  # it may be about to get one
    crew.redis.hincrby(f"laescan:scan:{id_}", "created_ms", -6_000)
    reconciler.reconcile()
    reconciler.reconcile()
    assert jobs.queue("interactive", crew.redis).count == 1
    assert crew.tally()["lost_jobs"] == 1
    crew.redis.flushall()


def test_a_job_without_a_row_is_counted_and_nothing_else(crew, origin, worker) -> None:
    jobs.Jobs(crew.redis).put(["0" * 32], "interactive")
    assert crew.ended(crew.scan(origin.url("/a.jpg"))).state == "done"
    assert crew.tally()["orphan_jobs"] == 1


def test_bulk_gets_its_turn_although_somebody_always_waits(crew, origin) -> None:
    bulk = [crew.scan(origin.url(f"/nowhere?b{n}"), queue="bulk") for n in range(3)]
    ids = [crew.scan(origin.url(f"/nowhere?i{n}")) for n in range(24)]
    crew.hire()
    until(lambda: all(crew.row(id_).is_terminal for id_ in bulk + ids))
    order = sorted(bulk + ids, key=lambda id_: crew.row(id_).started_s)
    assert order[0] == ids[0]
    assert bulk[0] in order[:9]
    crew.dismiss()
    crew.redis.flushall()


def test_nothing_in_redis_or_in_the_log_shows_what_a_url_hides(crew, origin, worker) -> None:
    crew.ended(crew.scan(origin.url("/a.jpg?token=hidden")))
    assert b"hidden" not in (crew.folder / "workers.log").read_bytes()
    shown = [key for key in crew.redis.keys("rq:*") if crew.redis.type(key) == b"hash"]
    assert b"hidden" not in json.dumps([str(crew.redis.hgetall(key)) for key in shown]).encode()


class Clock:
    """Stands between a reconciler and its Redis, and has Redis's clock set."""

    def __init__(self, client):
        self.client, self.ahead_s = client, 0

    def time(self):
        seconds, micros = self.client.time()
        return seconds + self.ahead_s, micros


def test_a_clock_that_is_set_ends_no_lease_by_itself(crew) -> None:
    reconciler = Reconciler(crew.redis, Settings())
    reconciler._redis = clock = Clock(crew.redis)
    assert not reconciler._clock_jumped()
    for ahead_s in (3600, 0, -3600):
        clock.ahead_s = ahead_s
        assert reconciler._clock_jumped()
        assert not reconciler._clock_jumped()


def test_a_lease_from_before_the_clock_was_set_back_ends_as_soon_as_any(crew) -> None:
    id_, later = crew.scan("http://127.0.0.5/x.jpg"), crew.scan("http://127.0.0.5/y.jpg")
    lease = Lease.start(crew.redis, id_, owner="dead")
    Lease.start(crew.redis, later, owner="dead").give_back(strike=True, delay_s=5)
    an_hour_ahead = int(crew.redis.zscore("laescan:leases", id_)) + 3_600_000
    crew.redis.zadd("laescan:leases", {id_: an_hour_ahead})
    crew.redis.zadd("laescan:due", {later: an_hour_ahead})
    assert Lease.take_expired(crew.redis, most=10) == []
    assert crew.redis.zscore("laescan:leases", id_) < an_hour_ahead - 3_500_000
    assert take_due(crew.redis, most=10) == [(later, "interactive")]
    assert lease.renew()
    crew.redis.flushall()


def test_a_host_that_asks_for_quiet_is_asked_no_more_for_bulk_until_then(crew, origin, worker) -> None:
    asked = []

    async def answer(writer, _headers):
        asked.append(writer)
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n")

    origin.routes["/busy.jpg"] = answer
    assert crew.ended(crew.scan(origin.url("/busy.jpg"), queue="bulk")).outcome.failure.code == "rate_limited"
    (told,) = until(lambda: crew.redis.keys("laescan:quiet:*"))
    held = crew.scan(origin.url("/a.jpg"), queue="bulk")
    until(lambda: crew.redis.zscore("laescan:due", held))
    assert (crew.row(held).state, crew.row(held).attempt) == ("queued", 0)
    assert crew.ended(crew.scan(origin.url("/a.jpg?now"))).outcome.verdict  # who waits at a page is one request
    crew.redis.delete(told)
    crew.redis.zadd("laescan:due", {held: 1}, xx=True)  # as if the minute were over; a reconciler finds it
    for id_, queue in take_due(crew.redis, most=10):
        jobs.Jobs(crew.redis).put([id_], queue)
    assert crew.ended(held).outcome.verdict
    crew.redis.set(told, b"", px=86_400_000)
    assert "not asked" in crew.ended(crew.scan(origin.url("/busy.jpg?2"), queue="bulk")).outcome.failure.message
    assert len(asked) == 1


def test_what_has_not_changed_is_not_fetched_again_and_still_has_its_report(crew, origin, worker) -> None:
    picture, asked = {"etag": b'"one"', "body": jpeg(64, 48)}, []

    async def answer(writer, headers):
        asked.append(headers.get("if-none-match"))
        unchanged = asked[-1] == picture["etag"].decode()
        status, body = (b"304 Not Modified", b"") if unchanged else (b"200 OK", picture["body"])
        writer.write(
            b"HTTP/1.1 %b\r\nETag: %b\r\nContent-Length: %d\r\n\r\n%b" % (status, picture["etag"], len(body), body)
        )

    origin.routes["/versions.jpg"] = answer
    first, second = (crew.ended(crew.scan(origin.url("/versions.jpg"))) for _ in range(2))
    assert asked == [None, '"one"']
    assert second.outcome.verdict.media == first.outcome.verdict.media
    assert second.outcome.verdict.cache.kind == "exact"
    for name in ("report.html", "overlay.jpg", "plain.jpg"):
        kept = [crew.ask(lambda ledger, row=row: ledger.artifact(row.id, name, tenant="t")) for row in (first, second)]  # noqa: B023
        assert kept[0]
        assert kept[0] == kept[1]
    crew.redis.delete(f"laescan:artifact:{first.id}", f"laescan:artifact:{second.id}")
    crew.ended(crew.scan(origin.url("/versions.jpg")))
    assert asked[2:] == [None], "there was nothing left to show, so it was fetched to be drawn"
    picture.update(etag=b'"two"', body=jpeg(80, 60))
    changed = crew.ended(crew.scan(origin.url("/versions.jpg")))
    assert asked[3:] == ['"one"']
    assert changed.outcome.verdict.media.width == 80


def test_why_a_url_failed_is_remembered_until_it_does_not(crew, origin, worker) -> None:
    url, requests = origin.url("/later.jpg"), len(origin.requests)
    assert crew.ended(crew.scan(url)).outcome.failure.code == "gone"

    async def known(ledger):
        return await Failures(ledger.redis).known(url, tenant="t")

    assert crew.ask(known).failure.code == "gone"
    origin.answer("/later.jpg", jpeg())
    assert crew.ended(crew.scan(url, rescan=True)).state == "done"
    assert crew.ask(known) is None
    assert len(origin.requests) == requests + 2


def test_after_redis_was_emptied_the_worker_is_there_and_the_lost_scan_is_not(crew, origin, worker) -> None:
    lost = crew.scan(origin.url("/stalls.jpg"))
    running(crew, lost)
    crew.redis.flushall()
    assert crew.row(lost) is None
    assert crew.ended(crew.scan(origin.url("/a.jpg"))).state == "done"
    assert crew.row(lost) is None
    assert until(lambda: crew.redis.smembers("rq:workers"))
    assert worker.poll() is None
