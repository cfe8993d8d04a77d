"""A worker for pieces of lists: takes shards from rq, scans their rows many at a time, pushes each as it is done.

    laescan bulk --queue URL -> shards (rq) -> this, on any number of machines -> rows (Redis) -> OUT

One reason: a piece of a list is fetched by hundreds of connections at once, where a single scan holds a whole worker.
Whoever holds the list notices when a worker dies (its beat ends) and gives the rows that are missing to another.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import FrameType
from typing import Any
from uuid import uuid4

import msgspec
import redis
import redis.asyncio
from redis.exceptions import RedisError
from rq import SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.queue import Queue
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus

from scanner.bulk.journal import key_of
from scanner.bulk.shards import BEAT_S, BEAT_TTL_S, QUEUE, ROWS_TTL_S, Answer, Shard, beat_key, rows_key, scan_sources
from scanner.cache.recall import Recall
from scanner.engine.client import EngineClient
from scanner.engine.own import engine_for
from scanner.service import jobs
from scanner.settings import Settings

log = logging.getLogger(__name__)

TENANT = ":bulk"
"""Whose the URLs of queued lists are: a name that `laescan token create` gives nobody."""
AWAY_S = 1.0


class ShardWorker(SimpleWorker):
    """rq's loop without its fork and its remote commands; runs the one allowed function."""

    def __init__(self, client: redis.Redis, settings: Settings, model: EngineClient) -> None:
        name = f"shards-{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:8]}"
        super().__init__(
            [Queue(QUEUE, connection=client, serializer=JSONSerializer)],
            name=name,
            connection=client,
            serializer=JSONSerializer,
            worker_ttl=30,
            default_result_ttl=0,
            log_job_description=False,
        )
        self._settings, self._model = settings, model

    def subscribe(self) -> None:
        """Listen to no remote command."""

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Scan the shard that the job names; whatever names something else is dropped."""
        del queue
        try:
            self.set_state(WorkerStatus.BUSY)  # rq raises in the middle of what is idle when it is asked to stop
            if not jobs.is_allowed(job, jobs.SCAN_SHARD):
                log.error("job %s names something that may not be run here; refused", job.id)
            else:
                asyncio.run(scan(self.connection, str(job.args[0]), self._settings, self._model, beat=self.heartbeat))
            job.delete()
        except RedisError as error:  # rq would end the worker
            log.warning("Redis is away, waiting for it; other workers get this piece: %s", error)
            self._wait_for_redis()

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Stop after the running shard; at once when Redis, which rq asks about it, is away."""
        try:
            super().request_stop(signum, frame)  # type: ignore[no-untyped-call]
        except RedisError as error:
            raise StopRequested from error

    def _wait_for_redis(self) -> None:
        while True:
            with contextlib.suppress(RedisError):
                self.connection.ping()
                return
            time.sleep(AWAY_S)


async def scan(
    client: redis.Redis, key: str, settings: Settings, model: EngineClient, *, beat: Callable[[], None]
) -> None:
    """Scan one shard, unless it was taken back; `beat` says meanwhile that the worker lives."""
    found = await asyncio.to_thread(client.get, key)
    if not isinstance(found, bytes):
        return
    shard = msgspec.msgpack.decode(found, type=Shard)
    settings = msgspec.structs.replace(
        settings, respect_noai=shard.respect_noai, user_agent=shard.user_agent, max_frames=shard.max_frames
    )
    url = settings.cache_url or settings.redis_url
    async with redis.asyncio.Redis.from_url(url) as memory, _beating(client, key, beat) as is_ours:
        sources = {entry.row: key_of(entry.source) for entry in shard.entries}
        rows = scan_sources(
            shard.entries,
            settings,
            model,
            policy=shard.policy,
            patience=shard.patience,
            with_hash=shard.with_hash,
            further=Recall(memory, settings, model_id=model.info.model_id, tenant=TENANT),
        )
        async with contextlib.aclosing(rows):
            async for row, result in rows:
                answer = Answer(shard.id, row, sources[row], result)
                await asyncio.to_thread(_push, client, shard.run, msgspec.msgpack.encode(answer))
                if not is_ours.is_set():
                    log.warning("a shard was taken back; leaving it")
                    return


def _push(client: redis.Redis, run: str, answer: bytes) -> None:
    """A row to whoever holds the list."""
    with client.pipeline(transaction=False) as pipe:
        pipe.rpush(rows_key(run), answer)
        pipe.expire(rows_key(run), ROWS_TTL_S)
        pipe.execute()


@contextlib.asynccontextmanager
async def _beating(client: redis.Redis, key: str, beat_of_worker: Callable[[], None]) -> AsyncIterator[asyncio.Event]:
    """Say that the shard is worked on and its worker lives; the event is cleared when the shard was taken back."""
    is_ours = asyncio.Event()
    is_ours.set()

    async def beat() -> None:
        while True:
            with contextlib.suppress(RedisError):
                await asyncio.to_thread(client.set, beat_key(key), b"", ex=BEAT_TTL_S)
                if not await asyncio.to_thread(client.exists, key):
                    is_ours.clear()
                await asyncio.to_thread(beat_of_worker)  # rq's own comes between jobs only, and holds for 90 s
            await asyncio.sleep(BEAT_S)

    task = asyncio.create_task(beat())
    try:
        yield is_ours
    finally:
        task.cancel()


def run(settings: Settings) -> None:
    """Work until SIGTERM or Ctrl-C: the running shard is ended first; a second signal leaves it to others."""
    with _engine(settings) as model:
        ShardWorker(redis.Redis.from_url(settings.redis_url), settings, model).work(logging_level="WARNING")


@contextlib.contextmanager
def _engine(settings: Settings) -> Iterator[EngineClient]:
    """The machine's engine or our own, kept by an event loop in a thread: this one is rq's, for its signals.

    Raises what `engine_for` raises, and OSError when no engine can be started.
    """
    found: Future[EngineClient] = Future()

    async def keep() -> None:
        async with engine_for(settings) as model:
            found.set_result(model)
            await asyncio.Event().wait()  # until it is cancelled

    loop = asyncio.new_event_loop()
    keeping = loop.create_task(keep())
    with contextlib.closing(loop), ThreadPoolExecutor(1, "laescan-engine-keeper") as thread:
        ended = thread.submit(loop.run_until_complete, keeping)
        either: tuple[Future[Any], ...] = (found, ended)
        try:
            wait(either, return_when=FIRST_COMPLETED)
            if ended.done():
                ended.result()
            yield found.result()
        finally:
            loop.call_soon_threadsafe(keeping.cancel)
