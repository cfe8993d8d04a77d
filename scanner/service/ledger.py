"""Every accepted scan is a row here until its outcome is forgotten: the promise behind each 202.

In: `ScanRequest`s from the API. Out: `ScanRow`s, as they are now, when they change, or when they have ended.
One reason: rq is transport. It loses a job with its worker, or needs minutes to notice; a row is lost with Redis only.

The worker's half (leases) is `lease`, the steps and the keys are in `ledger.lua`. Light: the API imports it.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from importlib import resources
from typing import Final, get_args

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from scanner.contract import Failure, Outcome, QueueName, ScanRequest, ScanRow, ScanState
from scanner.errors import Cancelled, KeyReused, ScanError
from scanner.service import drawings
from scanner.settings import Settings

log = logging.getLogger(__name__)

QUEUES: Final[tuple[QueueName, ...]] = get_args(QueueName)
STEPS: Final = resources.files("scanner.service").joinpath("ledger.lua").read_text("utf-8")
"""The script behind every step; the first argument names the step."""
ROW: Final = "laescan:scan:"
QUEUED: Final = "laescan:queued:"
LEASES: Final = "laescan:leases"
TALLY: Final = "laescan:tally"
CHANGES: Final = "laescan:changes"
SINCE: Final = "laescan:since"
IDEMPOTENCY_TTL_S: Final = 86_400
"""How long an idempotency key stands for its request."""
_POLL_S = 1.0  # a row is read again this often while somebody waits and no message of Redis's can come
_HEARD_POLL_S = 5.0  # ... and this often while they come: places in a queue move without one


def failure_outcome(source: str, error: ScanError) -> Outcome:
    """The outcome of a scan that the service ended."""
    failure = Failure(code=error.code, message=str(error), retryable=error.retryable)
    return Outcome(source=source, failure=failure)


class Accepted(msgspec.Struct, frozen=True):
    """What became of a request. `enqueue`: a job must be put into the row's queue now (else one is there already)."""

    row: ScanRow
    enqueue: bool


class Ledger:
    """Rows in Redis, seen from the API; one for each process, on a client that answers bytes (the default).

    `drawings`: the Redis with what was drawn of scans, where that is another one.
    Every method may raise redis.exceptions.RedisError: nothing is promised that is not written.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        settings: Settings | None = None,
        *,
        drawings: redis.asyncio.Redis | None = None,
    ) -> None:
        self.redis = client
        self._drawings = drawings or client
        self._settings = settings or Settings()
        self._step = client.register_script(STEPS)
        self._changes = _Changes(client)

    async def accept(self, request: ScanRequest, *, idempotency_key: str | None = None) -> ScanRow:
        """`accept_for_queue` for who lets the reconciler put the job into its queue (up to 5 s later)."""
        return (await self.accept_for_queue(request, idempotency_key=idempotency_key)).row

    async def accept_for_queue(self, request: ScanRequest, *, idempotency_key: str | None = None) -> Accepted:
        """Write the row, or join the one that is queued or running for the same tenant and URL (or upload).

        A queued bulk scan that an interactive ask joins becomes an interactive one. A running one, whose report and
        pictures nobody draws, is not joined; the two share the work all the same (`scanner.service.flight`).
        Raises KeyReused when the idempotency key stands for another request.
        """
        return (await self.accept_many([request], idempotency_keys=[idempotency_key]))[0]

    async def accept_many(
        self, requests: Sequence[ScanRequest], *, idempotency_keys: Sequence[str | None] | None = None
    ) -> list[Accepted]:
        """As `accept_for_queue`, in two round trips for all; raises KeyReused when a key was for another request."""
        keys = idempotency_keys or [None] * len(requests)
        async with self.redis.pipeline(transaction=False) as pipe:
            for request, key in zip(requests, keys, strict=True):
                await self._step(args=acceptance(request, key), client=pipe)
            answers = [(how.decode(), id_.decode()) for how, id_ in await pipe.execute()]
        if any(how == "conflict" for how, _ in answers):
            msg = "this idempotency key was used for another request; use a new key for a new request"
            raise KeyReused(msg)
        rows = await self._read([id_ for _, id_ in answers])
        return [
            Accepted(row or _lost(request, id_), how in {"new", "promoted"})
            for request, (how, id_), row in zip(requests, answers, rows, strict=True)
        ]

    async def knows(self, idempotency_key: str, *, tenant: str) -> bool:
        """Whether a scan was accepted under this key."""
        return bool(await self.redis.exists(_claimed(tenant, idempotency_key)))

    async def get(self, id: str, *, tenant: str) -> ScanRow | None:  # noqa: A002 - the API's word
        """The row as it is now; None when there is none, or it is another tenant's."""
        return (await self.get_many([id], tenant=tenant))[0]

    async def get_many(self, ids: Sequence[str], *, tenant: str) -> list[ScanRow | None]:
        """As `get`, in two round trips for all."""
        return [row if row is not None and row.tenant == tenant else None for row in await self._read(ids)]

    async def states(self, ids: Sequence[str], *, tenant: str) -> Counter[str]:
        """How many of these scans are in which state, in one round trip; `forgotten` counts those without a row."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hmget(ROW + id_, "tenant", "state")
            found: list[list[bytes | None]] = await pipe.execute()
        ours = tenant.encode()
        return Counter(state.decode() if owner == ours and state else "forgotten" for owner, state in found)

    async def wait(self, id: str, *, tenant: str, timeout_s: float) -> ScanRow | None:  # noqa: A002
        """The row once it is terminal, or as it is after `timeout_s`; None when it is there no more."""
        row: ScanRow | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), contextlib.aclosing(self.events(id, tenant=tenant)) as events:
                async for row in events:  # noqa: B007 - the last one is the answer
                    pass
        return row if row is not None and row.is_terminal else await self.get(id, tenant=tenant)

    async def events(self, id: str, *, tenant: str) -> AsyncGenerator[ScanRow, None]:  # noqa: A002
        """The row now and after each change, up to the terminal one; nothing when there is no such row."""
        last: ScanRow | None = None
        async with self._changes.of(id) as changed:
            while True:
                changed.clear()
                row = await self.get(id, tenant=tenant)
                if row is None:
                    return
                if row != last:
                    yield row
                if row.is_terminal:
                    return
                last = row
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _HEARD_POLL_S if self._changes.is_heard else _POLL_S)

    async def cancel(self, id: str, *, tenant: str) -> ScanRow | None:  # noqa: A002
        """End a queued or running scan at once, for everyone who joined it; out: the row, None when there is none.

        A worker that runs it learns within a second, and can write nothing from now on.
        """
        row = await self.get(id, tenant=tenant)
        if row is None:
            return None
        await self.cancel_many([row])
        return await self.get(id, tenant=tenant)

    async def cancel_many(self, rows: Sequence[ScanRow]) -> None:
        """End those of these that are queued or running, in one round trip."""
        error = Cancelled("it was cancelled; submit it again to have it scanned")
        async with self.redis.pipeline(transaction=False) as pipe:
            for row in rows:
                outcome = msgspec.json.encode(failure_outcome(row.source, error))
                what = (row.id, row.tenant, outcome, int(self._settings.outcome_ttl_s))
                await self._step(args=["cancel", *what], client=pipe)
            await pipe.execute()

    async def forget(self, id: str, *, tenant: str) -> bool:  # noqa: A002
        """Drop an ended scan and what was drawn of it; False when there is none, or it has not ended."""
        row = await self.get(id, tenant=tenant)
        if row is None or not row.is_terminal:
            return False
        await drawings.forget(self._drawings, id)  # first: what is acknowledged was done
        return bool(await self._step(args=["forget", id, tenant]) == 1)

    async def since(self) -> float | None:
        """When the first scan was accepted after this Redis was empty, in seconds since 1970; None: none was."""
        found = await self.redis.get(SINCE)
        return None if found is None else int(found) / 1000

    async def depths(self) -> dict[str, int]:
        """Scans that wait, by queue, and those `running`."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for queue in QUEUES:
                pipe.zcard(QUEUED + queue)
            pipe.zcard(LEASES)
            counts = await pipe.execute()
        return dict(zip((*QUEUES, "running"), counts, strict=True))

    async def tally(self) -> dict[str, int]:
        """Counters since Redis was empty, named in `ledger.lua`; at rest accepted = done + failed + cancelled."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(TALLY)
            found: list[dict[bytes, bytes]] = await pipe.execute()
        return {name.decode(): int(count) for name, count in found[0].items()}

    async def artifact(self, id: str, name: str, *, tenant: str) -> bytes | None:  # noqa: A002
        """What was drawn of it (`scanner.report.artifacts`) by who wrote its outcome; None when there is none."""
        async with self.redis.pipeline(transaction=False) as pipe:
            pipe.hmget(ROW + id, "tenant", "fence", "outcome")
            ((owner, fence, outcome),) = await pipe.execute()
        if outcome is None or owner is None or owner.decode() != tenant:
            return None
        return await drawings.read(self._drawings, id, fence, name)

    async def _read(self, ids: Sequence[str]) -> list[ScanRow | None]:
        """Rows in the order of `ids`, with their places in the queue."""
        async with self.redis.pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hgetall(ROW + id_)
            hashes: list[dict[bytes, bytes]] = await pipe.execute()
            waiting = [i for i, found in enumerate(hashes) if found.get(b"state") == b"queued"]
            for i in waiting:
                pipe.zrank(QUEUED + hashes[i][b"queue"].decode(), ids[i])
            ranks = dict(zip(waiting, await pipe.execute() if waiting else [], strict=True))
        return [_row(id_, found, ranks.get(i)) for i, (id_, found) in enumerate(zip(ids, hashes, strict=True))]


def _claimed(tenant: str, idempotency_key: str) -> str:
    return "laescan:idempotent:" + _digest(tenant, idempotency_key)


def acceptance(request: ScanRequest, idempotency_key: str | None) -> list[str | bytes | int]:
    """The arguments of the step `accept`, for whoever has a client."""
    encoded = msgspec.json.encode(request)
    asked = request.source_url if request.upload is None else f"upload {request.upload}"
    flight = "laescan:flight:" + _digest(request.tenant, str(asked), "rescan" if request.rescan else "")
    idempotent = "" if idempotency_key is None else _claimed(request.tenant, idempotency_key)
    digest = hashlib.sha256(encoded).hexdigest()
    what = (secrets.token_hex(16), request.tenant, request.source, encoded, request.queue)
    return ["accept", *what, flight, idempotent, digest, IDEMPOTENCY_TTL_S]


def _digest(*parts: str) -> str:
    """One name for several strings, whatever is in them; a listing of keys shows no URL."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()


def _lost(request: ScanRequest, id_: str) -> ScanRow:
    """A row that ended and was forgotten between two round trips; its owner asks again and is told so."""
    return ScanRow(
        id=id_, tenant=request.tenant, source=request.source, queue=request.queue, state="queued", created_s=0.0
    )


def _row(id_: str, found: Mapping[bytes, bytes], position: int | None) -> ScanRow | None:
    """The row; None when there is none, or none that can be read: it must not take those that are asked for with it."""
    if b"state" not in found:
        return None
    try:
        return _read_row(id_, found, position)
    except (KeyError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        log.error("the row of scan %s is damaged and counts as lost: %s", id_, type(error).__name__)  # noqa: TRY400 - what is in it is not for a log
        return None


def _read_row(id_: str, found: Mapping[bytes, bytes], position: int | None) -> ScanRow:
    def seconds(name: bytes) -> float | None:
        return int(found[name]) / 1000 if name in found else None

    state: ScanState = msgspec.convert(found[b"state"].decode(), ScanState)
    outcome = found.get(b"outcome")
    return ScanRow(
        id=id_,
        tenant=found[b"tenant"].decode(),
        source=found[b"source"].decode(),
        queue=msgspec.convert(found[b"queue"].decode(), QueueName),
        state=state,
        stage=found[b"stage"].decode() if b"stage" in found else None,
        percent=float(found[b"percent"]) if found.get(b"percent") else None,
        position=position,
        attempt=int(found[b"attempt"]),
        created_s=int(found[b"created_ms"]) / 1000,
        started_s=seconds(b"started_ms"),
        finished_s=seconds(b"finished_ms"),
        outcome=None if outcome is None else msgspec.json.decode(outcome, type=Outcome),
    )


class _Changes:
    """Who waits for which row: one subscription for the whole process, while anybody waits.

    It only wakes early who polls anyway: a message that is missed costs `_HEARD_POLL_S`, never an answer.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._redis = client
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self.is_heard = False
        """Whether every change is told from here on: Redis has confirmed the subscription, and nobody hung up."""

    @contextlib.asynccontextmanager
    async def of(self, id_: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the row changes."""
        changed = asyncio.Event()
        self._waiting.setdefault(id_, set()).add(changed)
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="laescan-ledger-changes")
        try:
            yield changed
        finally:
            self._waiting[id_].discard(changed)
            if not self._waiting[id_]:
                del self._waiting[id_]
            if not self._waiting and self._task is not None:
                self._task.cancel()
                self._task, self.is_heard = None, False

    async def _listen(self) -> None:
        """Until it is cancelled, which redis swallows when it comes while it connects: so it is asked for, too."""
        ours = asyncio.current_task()
        while ours is None or not ours.cancelling():
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANGES)
                    while ours is None or not ours.cancelling():
                        message = await pubsub.get_message(timeout=_HEARD_POLL_S)
                        if message is None:
                            continue
                        if message["type"] == "subscribe":
                            self._turn(is_heard=True)
                        else:
                            self._wake(message["data"].decode())
            except (RedisError, OSError):
                if self._task is ours:
                    self._turn(is_heard=False)
                await asyncio.sleep(_POLL_S)

    def _turn(self, *, is_heard: bool) -> None:
        """Changes are told from now on, or no more: whoever waits looks once, at what may have been missed."""
        self.is_heard = is_heard
        for id_ in self._waiting:
            self._wake(id_)

    def _wake(self, id_: str) -> None:
        for changed in self._waiting.get(id_, ()):
            changed.set()
