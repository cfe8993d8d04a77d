"""The one job that there is, and how it gets into rq's queues.

In: ids of queued rows. Out: rq jobs that name `scanner.service.jobs.scan` and carry the id, nothing else.
One reason: rq names a job's function by its import path, so who can write to Redis could name any; ours can name one.

No pickle: JSON can name but not carry code. No URL: rq logs descriptions and arguments, and URLs may hold secrets.
Losing a job is harmless (the ledger's row is the promise, `reconciler` repairs), and so is a job too many.
"""

import asyncio
import secrets
from collections.abc import Iterable
from itertools import groupby
from typing import Final

import redis
from rq import Queue
from rq.exceptions import DeserializationError
from rq.job import Job
from rq.queue import EnqueueData
from rq.serializers import JSONSerializer

from scanner.contract import QueueName, ScanRow

SCAN: Final = "scanner.service.jobs.scan"
SCAN_SHARD: Final = "scanner.service.jobs.scan_shard"
"""Every function that a job may name: the first in the queues of scans, the second in that of shards."""
RECORD_TTL_S: Final = 60
"""How long rq keeps what became of a job: for a look, the ledger knows better."""
_NO_TIMEOUT: Final = -1  # rq's is a Python signal, which C code outlives; the worker holds the deadline and kills


class Jobs:
    """rq's queues on one Redis, for who submits."""

    def __init__(self, client: redis.Redis) -> None:
        self._queues: dict[QueueName, Queue] = {name: queue(name, client) for name in ("interactive", "bulk")}

    @classmethod
    def connect(cls, url: str) -> "Jobs":
        """For a process that has no blocking client of its own, like the API."""
        return cls(redis.Redis.from_url(url))

    def close(self) -> None:
        """Hang up; for who has connected."""
        for connected in self._queues.values():
            connected.connection.close()

    def put(self, ids: Iterable[str], name: QueueName, *, at_front: bool = False) -> None:
        """One job for each row, in one round trip; blocks."""
        self._queues[name].enqueue_many([_job(id_, at_front=at_front) for id_ in ids])

    async def enqueue(self, row: ScanRow) -> None:
        """A job for one accepted row."""
        await self.enqueue_many([row])

    async def enqueue_many(self, rows: Iterable[ScanRow]) -> None:
        """A job for each accepted row, in one round trip per queue."""
        for name, some in groupby(rows, key=lambda row: row.queue):
            await asyncio.to_thread(self.put, [row.id for row in some], name)


def queue(name: QueueName, client: redis.Redis) -> Queue:
    """An rq queue that speaks JSON."""
    return Queue(name, connection=client, serializer=JSONSerializer)


def scan_of(job_id: str) -> str:
    """The row that a job is for."""
    return job_id.partition("-")[0]


def waiting(name: QueueName, client: redis.Redis) -> set[str]:
    """The rows that have a job in this queue."""
    return {scan_of(job_id) for job_id in queue(name, client).get_job_ids()}


def is_allowed(job: Job, name: str = SCAN) -> bool:
    """Whether a job names the one function, with an id; False too for what is no JSON."""
    try:
        return job.func_name == name and len(job.args) == 1 and isinstance(job.args[0], str) and not job.kwargs
    except (DeserializationError, TypeError, ValueError):
        return False


def scan(scan_id: str) -> None:
    """The job, whose name is all that is used of it: `scanner.service.worker` knows what to do about it."""
    msg = f"{scan_id}: scans are run by `laescan worker`, not by `rq worker`"
    raise RuntimeError(msg)


def scan_shard(key: str) -> None:
    """The job of a piece of a list; `scanner.bulk.shard_worker` knows what to do about it."""
    msg = f"{key}: shards are scanned by `laescan bulk-worker`, not by `rq worker`"
    raise RuntimeError(msg)


def put_shard(key: str, client: redis.Redis) -> str:
    """A job for a piece of a list, which lies under `key`; out: the job's id."""
    job = Queue("shards", connection=client, serializer=JSONSerializer).enqueue_call(
        SCAN_SHARD,
        args=(key,),
        description="shard",
        timeout=_NO_TIMEOUT,
        result_ttl=0,
        failure_ttl=RECORD_TTL_S,
    )
    return str(job.id)


def shards_waiting(client: redis.Redis) -> set[str]:
    """The jobs of pieces of any list that no worker has taken yet."""
    return set(Queue("shards", connection=client, serializer=JSONSerializer).get_job_ids())


def _job(id_: str, *, at_front: bool) -> EnqueueData:
    return Queue.prepare_data(
        SCAN,
        args=(id_,),
        job_id=f"{id_}-{secrets.token_hex(4)}",  # a scan may be queued again: a job's id is never used twice
        description="scan",
        timeout=_NO_TIMEOUT,
        result_ttl=0,
        failure_ttl=RECORD_TTL_S,
        at_front=at_front,
    )
