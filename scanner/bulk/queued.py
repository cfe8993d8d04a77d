"""A list scanned by workers elsewhere: cut into shards, put into rq, their rows taken back.

In: a `dispatch.Source`. Out: its results, whoever scanned. Blocking Redis calls run in threads.
One reason: workers come and go, and die; whoever holds the list holds what is missing of each shard, gives it to
another worker when the first one's beat has ended, and takes no row twice.

A host with a rate is in one shard at a time, so that ten workers ask it no more often than one.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import msgspec
import redis
from redis.exceptions import RedisError

from scanner.bulk.dispatch import Item, Source, host_of
from scanner.bulk.journal import Journal
from scanner.bulk.later import Later
from scanner.bulk.polite import NoHosts, Patience, Policy
from scanner.bulk.rows import Result
from scanner.bulk.shards import Answer, Shard, beat_key, rows_key
from scanner.service import jobs
from scanner.settings import Settings

log = logging.getLogger(__name__)

SHARD_ROWS: Final = 100
"""Some seconds of work: a worker that dies costs another one no more than that."""
AHEAD: Final = 16
"""Shards that wait or are worked on; enough for so many workers."""
_TAKEN_AT_ONCE: Final = 1_000
_POLL_S = 0.2
_CHECK_S = 5.0
_LOST_S = 20.0  # a shard that waits in no queue and has no beat for so long is lost
_PAYLOAD_TTL_S = 7 * 86_400


@dataclass
class _Out:
    """A shard that is out: its job, its missing rows, its hosts, and when it was last known to be somewhere."""

    shard: Shard
    job: str
    missing: dict[int, Item]
    hosts: set[str]
    seen_s: float


class QueueDispatch:
    """As `dispatch.Dispatch`, by workers elsewhere; `run` once."""

    def __init__(  # noqa: PLR0913 - each is a value of its own
        self,
        source: Source,
        client: redis.Redis,
        journal: Journal,
        settings: Settings,
        *,
        policy: Policy,
        patience: Patience,
        with_hash: bool,
        unlimited: Callable[[str], bool],
        judged_by: Callable[[str], None],
    ) -> None:
        self._source, self._redis, self._journal, self._settings = source, client, journal, settings
        self._policy, self._patience, self._with_hash, self._unlimited = policy, patience, with_hash, unlimited
        self._judged_by = judged_by
        self.hosts = NoHosts()
        self._run = secrets.token_hex(8)
        self._later: Later[Item] = Later(Item)
        self._put_off: set[str] = set()
        self._out: dict[str, _Out] = {}
        self._waiters: dict[bytes, list[Item]] = {}
        self._is_read, self._stopping = False, False
        self._checked_s = 0.0

    @property
    def in_flight(self) -> int:
        """Rows that are out."""
        return sum(len(out.missing) for out in self._out.values())

    @property
    def waiting_later(self) -> int:
        """Rows whose host is in another shard."""
        return self._later.waiting

    def stop(self) -> None:
        """Put no more out, and take back what no worker has begun."""
        self._stopping = True

    async def run(self) -> None:
        """Until every item has its result, or `stop`; raises OSError or RedisError when Redis stays away."""
        await asyncio.to_thread(self._begin)
        with self._later:
            try:
                while not self._is_over():
                    while not self._stopping and len(self._out) < AHEAD and (items := self._next()):
                        await asyncio.to_thread(self._put, items)
                    if not await self._take():
                        await asyncio.sleep(_POLL_S)
                    if time.monotonic() - self._checked_s > _CHECK_S:
                        self._checked_s = time.monotonic()
                        await asyncio.to_thread(self._check)
            finally:
                await asyncio.to_thread(self._forget, self._run)

    def _is_over(self) -> bool:
        if self._stopping:
            return True
        return self._is_read and not self._out and not self._later.waiting

    # ------------------------------------------------------------ out

    def _begin(self) -> None:
        """Leave no shard of a run that was killed behind: its workers stop when theirs is gone."""
        before = self._journal.fact("run")
        if before:
            self._forget(before)
        self._journal.set_facts(run=self._run)

    def _forget(self, run: str) -> None:
        keys = list(self._redis.scan_iter(match=f"laescan:bulk:{run}:*", count=1_000))
        if keys:
            self._redis.unlink(*keys)

    def _next(self) -> list[Item]:
        """The items of the next shard; none when there are none that may go out now."""
        busy = {host for out in self._out.values() for host in out.hosts}
        chosen: list[Item] = []
        for host in [host for host in self._put_off if host not in busy]:
            chosen += self._later.of_host(host, SHARD_ROWS - len(chosen))
            if not self._later.waiting_for(host):
                self._put_off.discard(host)
        reads = 0
        while len(chosen) < SHARD_ROWS and not self._is_read and reads < AHEAD and not self._source.is_congested():
            reads += 1
            items = self._source.read(SHARD_ROWS - len(chosen))
            if items is None:
                self._is_read = True
                break
            chosen += [item for item in items if self._goes_out(item, busy)]
        fresh = []
        for item in chosen:
            if item.key in self._waiters:
                self._waiters[item.key].append(item)
            else:
                self._waiters[item.key] = []
                fresh.append(item)
        return fresh

    def _goes_out(self, item: Item, busy: set[str]) -> bool:
        """Whether an item needs a worker, now."""
        known = self._source.known(item)
        if known is not None:
            self._source.done(item, known)
            return False
        if item.entry.fault:
            self._source.done(item, Result(code="bad_source", message=item.entry.fault, retryable=False, attempts=0))
            return False
        host = host_of(item.entry.source)
        if host in busy or host in self._put_off:
            self._later.put(host, item)
            self._put_off.add(host)
            return False
        return True

    def _put(self, items: list[Item]) -> None:
        shard = Shard(
            run=self._run,
            id=secrets.token_hex(8),
            entries=[msgspec.structs.replace(item.entry, extra={}) for item in items],
            policy=self._policy,
            patience=self._patience,
            with_hash=self._with_hash,
            respect_noai=self._settings.respect_noai,
            user_agent=self._settings.user_agent,
            max_frames=self._settings.max_frames,
        )
        hosts = {host for item in items if (host := host_of(item.entry.source)) and self._is_limited(host)}
        self._redis.set(shard.key, msgspec.msgpack.encode(shard), ex=_PAYLOAD_TTL_S)
        job = jobs.put_shard(shard.key, self._redis)
        self._out[shard.id] = _Out(shard, job, {item.entry.row: item for item in items}, hosts, time.monotonic())

    def _is_limited(self, host: str) -> bool:
        return self._policy.per_host_rate > 0 and not self._unlimited(host)

    # ------------------------------------------------------------ back

    async def _take(self) -> bool:
        """Take what has come back; a kill before it is written costs the scans of one second."""
        try:
            found = await asyncio.to_thread(self._redis.lpop, rows_key(self._run), _TAKEN_AT_ONCE)
        except RedisError as error:
            log.warning("Redis is away, waiting for it: %s", error)
            await asyncio.sleep(1.0)
            return False
        for data in cast("list[bytes]", found or []):
            self._accept(msgspec.msgpack.decode(data, type=Answer))
        return bool(found)

    def _accept(self, answer: Answer) -> None:
        out = self._out.get(answer.shard)
        item = out.missing.pop(answer.row, None) if out else None
        if out is None or item is None:
            return  # of a shard that was given to another worker in the meantime
        if answer.result.model_id is not None:
            self._judged_by(answer.result.model_id)
        self._source.done(item, answer.result)
        for other in self._waiters.pop(item.key, []):
            self._source.done(other, answer.result)
        if not out.missing:
            del self._out[answer.shard]

    def _check(self) -> None:
        """Give what dead workers left to others."""
        try:
            waiting = jobs.shards_waiting(self._redis)
            for out in list(self._out.values()):
                if out.job in waiting or self._redis.exists(beat_key(out.shard.key)):
                    out.seen_s = time.monotonic()
                elif time.monotonic() - out.seen_s > _LOST_S:
                    log.warning("a worker died; its %d rows go to another", len(out.missing))
                    self._redis.unlink(out.shard.key)
                    del self._out[out.shard.id]
                    self._put(list(out.missing.values()))
        except RedisError as error:
            log.warning("Redis is away, waiting for it: %s", error)
