"""One worker: takes jobs from rq, holds their leases, and has its horse scan.

In: jobs in the queues, interactive before bulk, but every eighth turn the other way round. Out: rows in the ledger.
One reason: what holds the lease and the clock must survive what happens to the scan, and must not survive itself.

    rq (Redis) -> Worker -- lease, deadline --> Horse (child process) -> ledger

Who is killed decides: the horse, and the worker gives the scan back at once; the worker, and its horse is killed by the
kernel, the lease ends after 15 s and the reconciler of another worker gives it back.
`laescan worker` runs several of these, each as `python -m scanner.service.worker`.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import time
from typing import Final
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import SimpleWorker
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus
from rq.worker_registration import register

from scanner.contract import QueueName, ScanRequest
from scanner.errors import RateLimited, TimedOut
from scanner.folders import sweep_scratch, sweep_spool
from scanner.logs import start_logging
from scanner.service import jobs, quiet
from scanner.service.lease import LONGEST_DELAY_MS, Lease
from scanner.service.ledger import QUEUES, ROW, TALLY, failure_outcome
from scanner.service.reconciler import Reconciler
from scanner.service.stable import DONE, HorseDiedError, Stable, Task
from scanner.settings import Settings

log = logging.getLogger(__name__)

BULK_FIRST_EVERY: Final = 8
"""Turns after which bulk goes first once, so that a busy day does not starve it."""
_RENEW_EVERY_S = 1.0  # also how soon a cancelled scan's horse is killed
_REDIS_TIMEOUT_S = 1.0
_TELL_EVERY_S = 5.0  # that it lives; rq forgets it after 90 s of silence
_WORKER_TTL_S = 30  # rq: waits half of it for a job, then says that it lives
_MOST_REDIS_PAUSE_S = 5.0


class Worker(SimpleWorker):
    """rq's loop without its fork, its remote commands, and its willingness to run whatever a job names."""

    log_result_lifespan = False
    max_connection_wait_time = _MOST_REDIS_PAUSE_S

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._told_s = -_TELL_EVERY_S
        queues = [jobs.queue(name, client) for name in QUEUES]
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        super().__init__(
            queues,
            name=name,
            connection=client,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_S,
            default_result_ttl=0,
            log_job_description=False,
        )
        self._settings, self._turns = settings, 0
        # Its own connection for leases: rq's waits 25 s for an answer, and a deadline must not wait for Redis.
        self._redis = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
        )
        self._jobs = jobs.Jobs(self._redis)
        self._stable = Stable(settings)

    def work_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT: the running scan may end, a second signal gives it back."""
        try:
            self._stable.ready()
            self.work(logging_level="WARNING")  # rq makes INFO of None, and that is three lines per job
        finally:
            self._stable.kill()

    def subscribe(self) -> None:
        """Listen to no remote command: rq's can stop a worker and name its jobs' functions."""

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Between two scans: say that this worker lives; a horse that died meanwhile is missed here."""
        self._tell(timeout, pipeline)
        self._stable.ready()

    def _tell(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Say that this worker lives; where rq says it three times per job, once in a while is enough."""
        if timeout is None and pipeline is None:
            if time.monotonic() < self._told_s + _TELL_EVERY_S:
                return
            self._told_s = time.monotonic()
            register(self)  # again: a Redis that was emptied has no list of workers any more
        super().heartbeat(timeout, pipeline)

    def reorder_queues(self, reference_queue: Queue) -> None:
        """Interactive first, but not always."""
        del reference_queue
        self._turns += 1
        bulk_first = self._turns % BULK_FIRST_EVERY == 0
        self._ordered_queues = self.queues[::-1] if bulk_first else self.queues[:]

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Do what the one allowed function stands for; count and drop whatever names another.

        The job goes first and the ledger's row stays, which is the promise: rq's own book of what it runs, and of what
        became of that, would cost 3 ms of CPU per job, and nobody reads it.
        """
        if not jobs.is_allowed(job):
            log.error("job %s names something that may not be run here; refused", job.id)
            self.connection.hincrby(TALLY, "refused_jobs", 1)
            job.delete()
            return
        with self.connection.pipeline(transaction=False) as pipe:
            self.set_state(WorkerStatus.BUSY, pipeline=pipe)  # a signal waits for who is busy
            pipe.lrem(queue.intermediate_queue_key, 1, job.id)
            pipe.delete(job.key)
            pipe.execute()
        try:
            self.scan(job.args[0])
        except (RedisError, HorseDiedError, ValueError) as error:  # whatever it was, the row's lease ends
            log.error("scan %s is left to the reconciler: %s", job.args[0], error)  # noqa: TRY400 - it says what happened
        self._stable.ready()

    def scan(self, scan_id: str) -> None:
        """What `jobs.scan` stands for: from the queued row to its outcome, or back into the queue."""
        self._stable.ready()  # it is, unless Redis went away between two jobs
        lease = Lease.start(self._redis, scan_id, owner=self.name)
        if lease is None or lease.request is None:
            if not self._redis.exists(ROW + scan_id):
                self._redis.hincrby(TALLY, "orphan_jobs", 1)
            return
        if self._is_put_off(lease, lease.request):
            return
        task = Task(scan_id, lease.fence, lease.attempt, lease.waited_s, lease.request)
        try:
            self._stable.begin(task)
            self._await_end(lease, lease.request.source)
        except HorseDiedError:
            log.warning("scan %s: its horse died in attempt %d", scan_id, lease.attempt)
            self._put(scan_id, lease.strike(self._settings))
        except SystemExit:  # told twice to stop
            self._stable.kill()
            log.warning("scan %s: given back, this worker stops", scan_id)
            self._put(scan_id, lease.give_back(strike=False))
            raise

    def _is_put_off(self, lease: Lease, request: ScanRequest) -> bool:
        """Whether a scan was put off, or ended, because its host asked to be left alone."""
        try:
            wait_s = quiet.wait_s(self._redis, request)
        except RateLimited as error:
            lease.finish(failure_outcome(request.source, error), self._settings)
            return True
        if wait_s:
            lease.give_back(strike=False, delay_s=min(wait_s, LONGEST_DELAY_MS / 1000))
        return wait_s > 0

    def _await_end(self, lease: Lease, source: str) -> None:
        """Hold the lease until the horse is done; kill it when the scan was cancelled or takes too long."""
        deadline_s = time.monotonic() + self._settings.scan_timeout_s
        while self._stable.heard(_RENEW_EVERY_S) != DONE:
            if not _is_ours(lease):
                log.info("scan %s: cancelled or taken over, stopping it", lease.id)
                self._stable.kill()
                return
            with contextlib.suppress(RedisError):
                self._tell()  # no more: another horse in the place of one that just died would know of no task
            if time.monotonic() > deadline_s:
                self._stable.kill()
                words = f"the scan took longer than {self._settings.scan_timeout_s:g} s and was stopped"
                lease.finish(failure_outcome(source, TimedOut(words)), self._settings)
                return

    def _put(self, scan_id: str, queue: QueueName | None) -> None:
        if queue is not None:
            self._jobs.put([scan_id], queue, at_front=True)


def _is_ours(lease: Lease) -> bool:
    try:
        return lease.renew()
    except RedisError:  # away: nobody else can take it either; the outcome is written when it is back
        return True


def main() -> int:
    """Be one worker; whoever started us starts another one when we end."""
    start_logging("info")
    settings = Settings.from_env(os.environ)
    sweep_scratch()
    sweep_spool(settings)
    client = redis.Redis.from_url(settings.redis_url)
    reconciler = Reconciler(redis.Redis.from_url(settings.redis_url), settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until rq's own handlers are there
    try:
        worker = Worker(client, settings)
        reconciler.start()
        worker.work_until_stopped()
    except HorseDiedError as error:
        log.error("%s", error)  # noqa: TRY400 - the horse has said why
        return 1
    except RedisError as error:
        log.error("Redis is away: %s", error)  # noqa: TRY400 - a trace of redis-py's tells nothing more
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
