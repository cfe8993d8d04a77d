"""What brings lost scans back: every few seconds, in every worker process, one of them at a time.

In: the ledger and rq's queues. Out: rows of dead workers queued again or ended as poisoned, lost jobs put again.
One reason: rq notices a dead worker after minutes, and a job that died between two lists never; a promise cannot wait.

It runs in a thread beside the worker, so it lives as long as any worker does, and dies with it.
"""

import contextlib
import logging
import threading
import time
from typing import Final, cast

import msgspec
import redis
from redis.exceptions import RedisError, ResponseError

from scanner.contract import QueueName
from scanner.folders import sweep_scratch, sweep_spool
from scanner.service.jobs import Jobs, waiting
from scanner.service.lease import Lease, take_due
from scanner.service.ledger import LEASES, QUEUED, QUEUES, ROW, TALLY
from scanner.settings import Settings

log = logging.getLogger(__name__)

PERIOD_S: Final = 5.0
"""With a lease of 15 s, a scan whose worker died waits at most 20 s for its next one."""
_LOCK, _LOCK_MS = "laescan:reconciler", 4_000
_AT_ONCE: Final = 1_000  # rows looked at in one pass; the oldest, so that those behind get their turn
_SETTLED_MS: Final = 5_000  # a row gets its job within milliseconds; after so long there is none
_SWEEP_EVERY = 12  # passes: a minute
_REWRITTEN, _REWRITE_EVERY_S = "laescan:rewritten", 86_400
_JUMP_S: Final = 2.0  # by which Redis's clock may differ from ours between two passes and is still the same clock


class _Asked(msgspec.Struct, frozen=True):
    """Of a row's request, what tells whether it is about an upload."""

    upload: str | None = None


class Reconciler:
    """One pass: `reconcile`; for ever: `start`."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self._redis, self._settings, self._jobs = client, settings, Jobs(client)
        self._stopped = threading.Event()
        self._offset_s: float | None = None

    def start(self) -> None:
        """Run in a daemon thread until the process ends or `stop`."""
        threading.Thread(target=self._run, name="laescan-reconciler", daemon=True).start()

    def stop(self) -> None:
        """Begin no other pass."""
        self._stopped.set()

    def _run(self) -> None:
        passes = 0
        while not self._stopped.wait(PERIOD_S):
            try:
                if not self._clock_jumped() and self._redis.set(_LOCK, b"", nx=True, px=_LOCK_MS):
                    self.reconcile()
                passes += 1
                if passes % _SWEEP_EVERY == 0:
                    sweep_scratch()
                    self._forget_media()
            except (RedisError, OSError) as error:
                log.warning("reconciling failed, trying again: %s", error)

    def _clock_jumped(self) -> bool:
        """Whether Redis's clock was set since the last pass: then all leases look ended; by the next pass none does.

        Each living worker renews its lease every second, in the new time.
        """
        seconds, micros = self._redis.time()
        before_s, self._offset_s = self._offset_s, seconds + micros / 1e6 - time.monotonic()
        jumped = before_s is not None and abs(self._offset_s - before_s) > _JUMP_S
        if jumped:
            log.warning("Redis's clock was set; leases are judged in the next pass")
        return jumped

    def reconcile(self) -> None:
        """Take back, put again; raises RedisError."""
        for lease in Lease.take_expired(self._redis, most=_AT_ONCE):
            queue = lease.strike(self._settings)
            log.warning("scan %s lost its worker; %s", lease.id, "queued again" if queue else "ended as poisoned")
            if queue:
                self._jobs.put([lease.id], queue, at_front=True)
        for id_, queue in take_due(self._redis, most=_AT_ONCE):
            self._jobs.put([id_], queue, at_front=True)
        for name in QUEUES:
            lost = self._without_job(name)
            if lost:
                log.warning("%d scans in queue %s had no job; put again", len(lost), name)
                self._redis.hincrby(TALLY, "lost_jobs", len(lost))
                self._jobs.put(reversed(lost), name, at_front=True)

    def _forget_media(self) -> None:
        """Remove uploads whose scans have ended; once a day have Redis write anew what it keeps on disk.

        What expires in Redis stays in its append-only file until then: by itself it rewrites from 64 MB on, and a quiet
        service would keep the URLs of a year.
        """
        sweep_spool(self._settings, self._uploads)
        if self._redis.set(_REWRITTEN, b"", nx=True, ex=_REWRITE_EVERY_S):
            with contextlib.suppress(ResponseError):  # one is running already, or this Redis does not let us
                self._redis.bgrewriteaof()

    def _uploads(self) -> set[str]:
        """The uploads that queued or running scans are about."""
        places = [LEASES, *(QUEUED + name for name in QUEUES)]
        ids = [id_.decode() for place in places for id_ in cast("list[bytes]", self._redis.zrange(place, 0, -1))]
        found: set[str] = set()
        for start in range(0, len(ids), _AT_ONCE):
            with self._redis.pipeline(transaction=False) as pipe:
                for id_ in ids[start : start + _AT_ONCE]:
                    pipe.hget(ROW + id_, "request")
                requests = [msgspec.json.decode(data, type=_Asked) for data in pipe.execute() if data]
            found |= {request.upload for request in requests if request.upload}
        return found

    def _without_job(self, name: QueueName) -> list[str]:
        """The oldest rows of a queue that should have a job in it by now and have none."""
        ids = [id_.decode() for id_ in cast("list[bytes]", self._redis.zrange(QUEUED + name, 0, _AT_ONCE - 1))]
        if not ids:
            return []
        has_job = waiting(name, self._redis)
        suspects = [id_ for id_ in ids if id_ not in has_job]
        seconds, micros = self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        with self._redis.pipeline(transaction=False) as pipe:
            for id_ in suspects:
                pipe.hmget(ROW + id_, "state", "created_ms", "requeued_ms")
                pipe.zscore("laescan:due", id_)
            answers = pipe.execute()
        return [
            id_
            for id_, (state, created_ms, requeued_ms), due in zip(suspects, answers[::2], answers[1::2], strict=True)
            if state == b"queued" and due is None and int(requeued_ms or created_ms) < now_ms - _SETTLED_MS
        ]
