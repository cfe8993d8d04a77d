"""The process that scans for one worker, one scan after the other, and may be killed at any moment.

In: tasks on the socket that its worker gave it. Out: the outcome into the ledger, then one word to the worker.
One reason: hostile media and hostile pages are handled here, so the worker, which holds the lease and the clock, is not
hurt by what happens to this. It never loads torch: the engine judges.

It serves many scans, because the jail, the codecs and the connection to the engine take a second to make ready; after
`MOST_SCANS`, or when its worker dies, it ends. `python -m scanner.service.horse DESCRIPTOR PARENT`, by `stable` only.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

import msgspec
import redis
import redis.asyncio
from redis.exceptions import RedisError

from scanner.cache.failures import Failures
from scanner.cache.recall import Recall
from scanner.cache.verdicts import VerdictCache
from scanner.contract import Failure, ModelInfo, Outcome, ScanRequest
from scanner.engine.client import EngineClient
from scanner.errors import BadSource, EngineError, Forbidden, Gone, Internal, LostUpload, ModelChanged, by_code
from scanner.folders import spool_folder
from scanner.logs import start_logging
from scanner.pipeline import Progress, Scanner, ScanResult
from scanner.report.artifacts import artifacts_of
from scanner.service import quiet, telemetry
from scanner.service.drawings import Drawings, Drawn
from scanner.service.flight import SingleFlight
from scanner.service.jobs import Jobs
from scanner.service.lease import MOST_ATTEMPTS, Lease, accept
from scanner.service.leash import die_with
from scanner.service.stable import DONE, LAST, MESSAGE_BYTES, READY, Task
from scanner.settings import Settings

log = logging.getLogger(__name__)

MOST_SCANS: Final = 500
"""Then another horse takes over: a leak in a library is bounded."""
_TELL_EVERY_S = 0.2  # progress: a person sees no more, and Redis has other things to do
_TELL_AFTER_S = 0.05  # a scan that ends sooner tells nothing but its end
_FINISH_TRIES, _FINISH_PAUSE_S = 60, 1.0  # Redis may be away for a minute; an outcome is worth the wait
_RETRY_AFTER_S = 5.0
_ANNOUNCE_EVERY_S = 10.0
_NOT_THERE: Final = {Gone.code, Forbidden.code, BadSource.code}  # how a file of ours that cannot be read ends
_LOST: Final = (
    "the file that you sent is not where this service's workers look for it; send it again, and if that fails, too, "
    "tell who runs the service that its API and its workers do not share LAESCAN_SPOOL"
)


class Horse:
    """Scans with what was made ready once."""

    def __init__(self, scanner: Scanner, flight: SingleFlight, memory: redis.asyncio.Redis, settings: Settings) -> None:
        self._scanner, self._flight, self._memory, self._settings = scanner, flight, memory, settings
        self._redis = redis.Redis.from_url(settings.redis_url)
        self._jobs = Jobs(self._redis)
        self._failures = Failures(memory)
        self._drawings = Drawings.connect(settings, model_id=scanner.model.info.model_id)

    async def run(self, task: Task) -> bool:
        """Scan, then write what came of it; raises nothing that the scan can cause.

        False when the engine has another model than when we came up: our keys and calibration are the old one's.
        """
        lease = Lease(self._redis, task.id, task.fence, task.attempt, task.waited_s, task.request)
        begun = time.monotonic()
        drawn = await self._drawn(task)
        result = await self._scan(task, lease, drawn=drawn is not None)
        if _is_to_be_retried(result.outcome, task.attempt):
            delay_s = _RETRY_AFTER_S * task.attempt
            log.warning("scan %s: %s; again in %g s", task.id, _code(result.outcome), delay_s)
            await asyncio.to_thread(lease.give_back, strike=True, delay_s=delay_s)
            return _code(result.outcome) != ModelChanged.code
        await self._note(task.request, result.outcome)
        await self._finish(task, lease, result, drawn, begun)
        return _code(result.outcome) != ModelChanged.code

    async def _scan(self, task: Task, lease: Lease, *, drawn: bool) -> ScanResult:
        request = task.request
        source = request.source_url or str(spool_folder(self._settings) / (request.upload or ""))
        model_id = self._scanner.model.info.model_id
        memory = Recall(self._memory, self._settings, model_id=model_id, tenant=request.tenant)
        async with _telling(lease) as tell, self._flight.aboard(f"{task.id}:{task.fence}", memory):
            result = await self._scanner.scan(
                source,
                progress=tell,
                keep_frames="if changed" if drawn else _is_drawn(task),
                urgent=request.queue == "interactive",
                rescan=request.rescan,
            )
        outcome = msgspec.structs.replace(result.outcome, source=request.source)
        return ScanResult(outcome if request.upload is None else _of_upload(outcome, source), result.frames)

    async def _drawn(self, task: Task) -> Drawn | None:
        """What is left of the last drawings of the same URL."""
        with contextlib.suppress(RedisError):
            if _is_drawn(task) and task.request.source_url is not None:
                return await asyncio.to_thread(self._drawings.find, task.request)
        return None

    async def _note(self, request: ScanRequest, outcome: Outcome) -> None:
        """Remember what a URL's failure was, or that it failed no more; before the outcome, which may be asked by."""
        if request.source_url is None:
            return
        with contextlib.suppress(RedisError):
            if outcome.failure is None:
                await self._failures.forget(request.source_url, tenant=request.tenant)
            else:
                await self._failures.remember(outcome.failure, url=request.source_url, tenant=request.tenant)

    async def _finish(self, task: Task, lease: Lease, result: ScanResult, drawn: Drawn | None, begun: float) -> None:
        """What was drawn, the outcome, then the accounts: in one thread, since each costs 0.1 ms."""
        await asyncio.to_thread(self._draw, task, result, drawn)

        def write() -> None:
            if lease.finish(result.outcome, self._settings):
                self._account(task, result.outcome, time.monotonic() - begun)
                return
            with contextlib.suppress(RedisError):  # it is not shown, and ends within the hour
                self._drawings.take_back(task.id, task.fence)

        for _ in range(_FINISH_TRIES):
            with contextlib.suppress(RedisError):
                await asyncio.to_thread(write)
                return
            await asyncio.sleep(_FINISH_PAUSE_S)

    def _draw(self, task: Task, result: ScanResult, drawn: Drawn | None) -> None:
        """Lay what was drawn where it is shown with the outcome; without room for it the outcome stands alone."""
        made = artifacts_of(result) if result.frames else {}
        verdict = result.outcome.verdict
        sha256 = None if verdict is None else verdict.media.sha256
        try:
            if made and not self._drawings.keep(task.id, task.fence, made):
                log.warning("scan %s: its report is not kept: it alone is over LAESCAN_MAX_ARTIFACT_BYTES", task.id)
            elif made and sha256 is not None:
                self._drawings.note(Drawn(task.id, sha256), task.request)
            elif drawn is not None and drawn.sha256 == sha256:
                self._drawings.copy(task.id, task.fence, of=drawn.scan)
        except RedisError as error:
            log.warning("scan %s: its report is not kept: %s", task.id, error)

    def _account(self, task: Task, outcome: Outcome, took_s: float) -> None:
        """Count it, and have scanned what a copy's verdict was inherited for; both may be lost with Redis."""
        request, verdict = task.request, outcome.verdict
        log.info("scan %s: %s in %.2f s", task.id, _code(outcome), took_s)
        with contextlib.suppress(RedisError):
            with self._redis.pipeline(transaction=False) as pipe:
                telemetry.observe(pipe, telemetry.QUEUE_WAIT, task.waited_s, queue=request.queue)
                telemetry.observe(pipe, telemetry.SERVICE, took_s, queue=request.queue)
                telemetry.count(pipe, telemetry.OUTCOMES, code=_code(outcome))
                quiet.hear(pipe, request, outcome)
                if verdict is not None:
                    telemetry.count(pipe, telemetry.CACHE, kind=verdict.cache.kind)
                    for stage, seconds in verdict.timings_s.items() if verdict.cache.kind == "miss" else ():
                        telemetry.observe(pipe, telemetry.STAGE, seconds, stage=stage)
                pipe.execute()
            if verdict is not None and verdict.cache.audit:
                audit = msgspec.structs.replace(request, queue="bulk", rescan=True)
                id_, needs_job = accept(self._redis, audit)
                if needs_job:
                    self._jobs.put([id_], "bulk")


def _of_upload(outcome: Outcome, path: str) -> Outcome:
    """The same in words for who sent the file: a path of ours tells nothing, and a file that is missing is our fault.

    That is worth another try: another machine's worker may have the folder that the API wrote it into.
    """
    failure = outcome.failure
    if failure is None:
        return outcome
    message = failure.message.replace(path, outcome.source)
    if failure.code in _NOT_THERE:
        log.error("an upload is missing: %s; API and workers must share LAESCAN_SPOOL", failure.message)
        failure, message = Failure(LostUpload.code, "", LostUpload.retryable), _LOST
    return msgspec.structs.replace(outcome, failure=msgspec.structs.replace(failure, message=message))


def _code(outcome: Outcome) -> str:
    return outcome.verdict.label.value if outcome.verdict else outcome.failure.code if outcome.failure else "nothing"


def _is_drawn(task: Task) -> bool:
    """Whether somebody will look at it.

    A third attempt is made without drawings: should they be what killed the first two, the verdict still comes.
    """
    return task.request.queue == "interactive" and task.attempt < MOST_ATTEMPTS


def _is_to_be_retried(outcome: Outcome, attempt: int) -> bool:
    """Whether it failed by our own fault, which may pass. What the source did is the answer; a bug stays a bug."""
    error = by_code().get(outcome.failure.code) if outcome.failure else None
    ours = error is not None and issubclass(error, EngineError) and error.retryable and error is not Internal
    return ours and attempt < MOST_ATTEMPTS


@contextlib.asynccontextmanager
async def _telling(lease: Lease) -> AsyncIterator[Progress]:
    """A progress callback for any thread; what it says reaches the ledger a few times per second, the latest first."""
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    latest: list[tuple[str, float | None]] = [("fetch", None)]

    def tell(stage: str, done: float | None) -> None:
        latest[0] = (stage, done)
        loop.call_soon_threadsafe(news.set)

    async def write() -> None:
        while True:
            await news.wait()
            await asyncio.sleep(_TELL_AFTER_S)
            news.clear()
            stage, done = latest[0]
            with contextlib.suppress(RedisError):  # it is news, not the outcome
                await asyncio.to_thread(lease.progress, stage, None if done is None else 100 * done)
            await asyncio.sleep(_TELL_EVERY_S - _TELL_AFTER_S)

    writing = asyncio.create_task(write())
    try:
        yield tell
    finally:
        writing.cancel()


async def serve(connection: socket.socket, settings: Settings) -> None:
    """Make ready, say so, and scan until the worker has gone or it is enough."""
    model = await asyncio.to_thread(EngineClient.open, settings)
    loop = asyncio.get_running_loop()
    with Scanner(settings, model=model, memory=(flight := _flight(settings, model.info.model_id))) as scanner:
        async with redis.asyncio.Redis.from_url(settings.cache_url or settings.redis_url) as memory:
            horse = Horse(scanner, flight, memory, settings)
            cache = VerdictCache(memory, settings)
            await _announce(cache, model.info)
            announcing = asyncio.create_task(_keep_announcing(cache, model.info))
            connection.setblocking(False)  # noqa: FBT003 - the socket's own signature
            await loop.sock_sendall(connection, READY)
            try:
                for left in reversed(range(MOST_SCANS)):
                    data = await loop.sock_recv(connection, MESSAGE_BYTES)
                    if not data:
                        return
                    goes_on = await horse.run(msgspec.msgpack.decode(data, type=Task)) and left > 0
                    await loop.sock_sendall(connection, DONE if goes_on else LAST)
                    if not goes_on:
                        return
            finally:
                announcing.cancel()


async def _announce(cache: VerdictCache, model: ModelInfo) -> None:
    with contextlib.suppress(RedisError):  # the next time will tell, too
        await cache.announce(model)


async def _keep_announcing(cache: VerdictCache, model: ModelInfo) -> None:
    """Say who judges, again and again: the Redis of verdicts may evict that, or come back empty."""
    while True:
        await asyncio.sleep(_ANNOUNCE_EVERY_S)
        await _announce(cache, model)


def _flight(settings: Settings, model_id: str) -> SingleFlight:
    return SingleFlight(redis.asyncio.Redis.from_url(settings.redis_url), model_id=model_id)


def main(arguments: list[str]) -> int:
    """Be the horse of the worker that started us."""
    descriptor, parent = map(int, arguments)
    die_with(parent, signal.SIGKILL)
    start_logging("info")
    with socket.socket(fileno=descriptor) as connection:
        try:
            asyncio.run(serve(connection, Settings.from_env(os.environ)))
        except EngineError as error:
            log.error("%s: %s", error.code, error)  # noqa: TRY400 - the words tell what to do, a trace would hide them
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
