"""What one job costs beside the scan itself: `python tests/bench_jobs.py [JOBS]`.

Ours: a row of the ledger, an rq job, the lease, the horse, a scan that has nothing to do (its upload is not there), the
outcome in the ledger. Theirs: `rq.Worker` with torch loaded, as somebody would write it who scores in the job, doing
nothing at all; it forks for every job. Beside it the same worker without torch, and rq's SimpleWorker, which does not
fork. Printed: CPU of all processes involved per job (not Redis's own), which a busy machine blurs least, and the time
on the clock. Starting up is not counted: ours by the kernel's count before and after, theirs by an empty run.
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import redis
import rq
from crew import Crew, children, until
from rq.serializers import JSONSerializer

from scanner.service.jobs import Jobs
from scanner.service.lease import accept
from scanner.service.ledger import QUEUED, ROW

TURNS = 3
STOCK = """
import sys
{load}
import redis, rq
from rq.serializers import JSONSerializer
connection = redis.Redis.from_url(sys.argv[1])
worker = rq.{kind}(["stock"], connection=connection, serializer=JSONSerializer)
worker.log_result_lifespan = False
worker.work(burst=True, logging_level="ERROR")
"""
STOCKS = {
    "rq.Worker, torch loaded": STOCK.format(load="import torch", kind="Worker"),
    "rq.Worker": STOCK.format(load="", kind="Worker"),
    "rq.SimpleWorker": STOCK.format(load="", kind="SimpleWorker"),
}


def cpu_s(pid):
    """Of a process and of its children that have ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(word) for word in words[11:15]) / os.sysconf("SC_CLK_TCK")


def family(pid):
    return [pid, *(further for child in children(pid) for further in family(child))]


def ours(crew, worker, jobs):
    """CPU and clock seconds of that many jobs."""
    ids = [accept(crew.redis, crew.request(upload=f"{number:064x}"))[0] for number in range(jobs)]
    before, begun = sum(map(cpu_s, family(worker.pid))), time.perf_counter()
    Jobs(crew.redis).put(ids, "interactive")
    until(lambda: crew.redis.hget(ROW + ids[-1], "outcome") and not crew.redis.zcard(f"{QUEUED}interactive"), 600)
    spent = sum(map(cpu_s, family(worker.pid))) - before, time.perf_counter() - begun
    states = {crew.redis.hget(ROW + id_, "state") for id_ in ids}
    assert states == {b"failed"}, states
    return spent


def run_stock(url, script, jobs):
    """CPU and clock seconds of a worker from its start to its end, its children included."""
    with redis.Redis.from_url(url) as client:
        queue = rq.Queue("stock", connection=client, serializer=JSONSerializer)
        queue.enqueue_many([rq.Queue.prepare_data("os.getpid", result_ttl=0, timeout=-1) for _ in range(jobs)])
        begun = time.perf_counter()
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", script, url], os.environ)
        _, status, used = os.wait4(pid, 0)
        took = time.perf_counter() - begun
        assert status == 0, status
        assert queue.count == 0
    return used.ru_utime + used.ru_stime, took


def stock(url, script, jobs):
    empty, full = run_stock(url, script, 0), run_stock(url, script, jobs)
    return full[0] - empty[0], full[1] - empty[1]


def main():
    """Print the table."""
    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print(f"Python {platform.python_version()}, rq {rq.VERSION}, {jobs} jobs, {TURNS} turns, medians")
    found = {name: [] for name in ("ours", *STOCKS)}
    with tempfile.TemporaryDirectory(prefix="laescan-jobs-") as folder, Crew(Path(folder)) as crew:
        worker = crew.hire()
        crew.horse(worker)
        ours(crew, worker, 1)  # the horse is ready from here on
        for _ in range(TURNS):
            found["ours"].append(ours(crew, worker, jobs))
            for name, script in STOCKS.items():
                found[name].append(stock(crew.url, script, jobs))
            crew.redis.flushdb()
    cpu_ms = {name: 1e3 * statistics.median(cpu for cpu, _ in spent) / jobs for name, spent in found.items()}
    for name, spent in found.items():
        wall_ms = 1e3 * statistics.median(wall for _, wall in spent) / jobs
        times = "" if name == "ours" else f" = {cpu_ms[name] / cpu_ms['ours']:.1f} times ours"
        print(f"{name:26}{cpu_ms[name]:8.2f} ms of CPU per job, {wall_ms:8.2f} ms on the clock{times}")


if __name__ == "__main__":
    main()
