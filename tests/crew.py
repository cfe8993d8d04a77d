"""A service without its API, for tests: Redis, an engine that needs no weights, and workers that can be killed."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import redis
from engines import EngineProcess
from origin import ALLOWED
from redis_server import start_redis

from scanner.contract import ScanRequest
from scanner.service.embedded import socket_url
from scanner.service.jobs import Jobs
from scanner.service.lease import accept
from scanner.service.ledger import Ledger

PATIENCE_S = 60


def until(condition, patience_s=PATIENCE_S):
    """What `condition` answers once it is truthy."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def children(pid):
    """Pids of the living children of a process."""
    with contextlib.suppress(FileNotFoundError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


class Crew:
    """Everything in one folder; `scan` submits as the API does."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.url = socket_url(folder / "redis")
        self.server = start_redis(folder / "redis")
        self.engine = EngineProcess(folder / "engine.sock", seconds=0.01)
        self.environ = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "TMPDIR": str(folder),
            "LAESCAN_REDIS_URL": self.url,
            "LAESCAN_ENGINE_SOCKET": str(folder / "engine.sock"),
            "LAESCAN_STATE": str(folder),
            "LAESCAN_ALLOW_NETWORKS": ",".join(ALLOWED),
            **{f"LAESCAN_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.workers = []
        self.redis = redis.Redis.from_url(self.url)
        self.log = (folder / "workers.log").open("ab")

    def hire(self, count=1):
        """Start workers; they take a second or two to be ready."""
        hired = [
            subprocess.Popen(
                [sys.executable, "-m", "scanner.service.worker"], env=self.environ, stdout=self.log, stderr=self.log
            )
            for _ in range(count)
        ]
        self.workers += hired
        return hired[0]

    def horse(self, worker):
        """The pid of a worker's horse, once it has one."""
        return until(lambda: children(worker.pid))[0]

    def request(self, source_url=None, **more):
        return ScanRequest(source_url=source_url, tenant="t", **more)

    def scan(self, source_url=None, **more):
        """Accept a scan and put its job; out: its id."""
        request = self.request(source_url, **more)
        id_, needs_job = accept(self.redis, request)
        if needs_job:
            Jobs(self.redis).put([id_], request.queue)
        return id_

    def row(self, id_):
        return self.ask(lambda ledger: ledger.get(id_, tenant="t"))

    def ended(self, id_, patience_s=PATIENCE_S):
        """The row once it is terminal."""
        return until(lambda: (row := self.row(id_)).is_terminal and row, patience_s)

    def ask(self, question):
        """What a Ledger answers."""

        async def run():
            async with redis.asyncio.Redis.from_url(self.url) as client:
                return await question(Ledger(client))

        return asyncio.run(run())

    def tally(self):
        return self.ask(lambda ledger: ledger.tally())

    def let_lease_end(self, id_):
        """As if 15 s had passed since the last heartbeat."""
        self.redis.zadd("laescan:leases", {id_: 1}, xx=True)

    def kill_redis(self):
        self.server.kill()
        self.server.wait()

    def dismiss(self):
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGKILL)
            worker.wait()
        self.workers.clear()

    def close(self):
        self.dismiss()
        self.engine.__exit__()
        self.redis.close()
        self.kill_redis()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
