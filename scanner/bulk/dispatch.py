"""Items in, a result for each out: which is fetched when, what is tried again, and what is not waited for.

    source -> polite hosts -> slots -> scan (fetch, decode, judge) -> result, or later again

One reason: everything that one bad host could do to the rest of a list is decided here. A fetch that takes long gives
its slot to another; a row that failed comes back when others are done; a host that has enough waits on disk.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from yarl import URL

from scanner.bulk.later import Later
from scanner.bulk.lists import Entry
from scanner.bulk.polite import Ending, Hosts, Patience, Policy, Turn
from scanner.bulk.rows import Result, failed
from scanner.contract import Failure, Outcome
from scanner.errors import EngineError, HostGivenUp, Internal, by_code

if TYPE_CHECKING:
    from scanner.pipeline import Progress

log = logging.getLogger(__name__)

SLOTS: Final = 256
"""Fetches at once; those that take long do not count."""
SLOW_S: Final = 3.0
"""A fetch that takes longer leaves its slot to another."""
MOST_SLOW: Final = 1_024
HOST_ITEMS: Final = 256
"""Items of one host held in memory; the others wait on disk."""
MOST_LATER: Final = 1_000_000
WAITERS: Final = 1_000  # items with one URL that wait for its one scan; more of them ask again in a while
_FIRST_READ, _MOST_READ = 64, 4_096
_FILL_S = 0.02
_FIRST_DELAY_S, _DELAY_GROWTH = 2.0, 4.0  # 2, 8, 32 s: most hiccups pass within a minute
_BUSY_TRIES: Final = 10  # a 429 says that the server lives; it is asked more patiently than a dead one
_ENDINGS: dict[str, Ending] = {
    "rate_limited": "busy",
    "unreachable": "failed",
    "timed_out": "failed",
    "source_failed": "failed",
    "too_large": "failed",  # a body without end costs as much as a host that is dead
    "bad_source": "refused",
    "blocked_address": "refused",
}


class Item(msgspec.Struct, frozen=True):
    """A row on its way: `key` names its source, `attempts` counts how often it was fetched."""

    entry: Entry
    key: bytes
    attempts: int = 0


class Source(Protocol):
    """Where items come from and results go."""

    def read(self, most: int) -> list[Item] | None:
        """The next items; none when there are none now, None when there will be none any more."""

    def known(self, item: Item) -> Result | None:
        """The result of the same source, if it has one."""

    def done(self, item: Item, result: Result) -> None:
        """An item's result, once."""

    def is_congested(self) -> bool:
        """Whether results come faster than they can be written."""


Scan = Callable[[Item, "Progress"], Awaitable[tuple[Outcome, Result]]]


class Dispatch:
    """One run; `run` once."""

    def __init__(
        self,
        source: Source,
        scan: Scan,
        *,
        policy: Policy,
        patience: Patience,
        unlimited: Callable[[str], bool] = lambda _host: False,
        slots: int = SLOTS,
    ) -> None:
        self._source, self.scan, self._patience = source, scan, patience
        self.hosts: Hosts[Item] = Hosts(policy, unlimited=unlimited)
        self._later: Later[Item] = Later(Item)
        self.free, self.slow = slots, 0
        self._flying: dict[bytes, list[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stirred = asyncio.Event()
        self._is_read, self._stopping = False, False
        self._read_size, self._read_at_s = _FIRST_READ, 0.0
        self._last_words: dict[str, str] = {}
        self._fault: BaseException | None = None

    @property
    def waiting_later(self) -> int:
        """Items that wait on disk, for a time or for room at their host."""
        return self._later.waiting

    @property
    def in_flight(self) -> int:
        """Scans at this moment."""
        return len(self._tasks)

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopping = True
        self._stirred.set()

    def stir(self) -> None:
        """Something has changed outside: there may be something to do."""
        self._stirred.set()

    async def run(self) -> None:
        """Until every item has its result, or `stop`; raises EngineError when nothing can be judged any more."""
        with self._later:
            try:
                while not self._is_over():
                    self._stirred.clear()
                    if self._fill():
                        await asyncio.sleep(0)
                    elif not self._is_over():
                        await self._until_stirred()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._fault is not None:
            raise self._fault

    def _is_over(self) -> bool:
        if self._fault is not None:
            return True
        if self._tasks:
            return False
        return self._stopping or (self._is_read and not self.hosts.waiting and not self._later.waiting)

    async def _until_stirred(self) -> None:
        """Until a scan ends, or a host may be asked again, or a row is due, or there may be more to read."""
        times = [self.hosts.wakes_s(), self._later.next_due_s(), None if self._is_read else self._read_at_s]
        now_s = time.monotonic()
        soonest_s = min((at for at in times if at is not None), default=now_s + 60)
        timeout_s = 60.0 if self._stopping else max(0.005, soonest_s - now_s)
        if self.free <= 0 or self._source.is_congested():
            timeout_s = 1.0
        try:
            async with asyncio.timeout(timeout_s):
                await self._stirred.wait()
        except TimeoutError:
            pass

    # ------------------------------------------------------------ begin

    def _fill(self) -> bool:
        """Begin what may be begun; True when there may be more at once."""
        if self._stopping:
            return False
        began_s = time.monotonic()
        for host, item in self._later.due(began_s, HOST_ITEMS):
            self.hosts.add(host, item)
        while self.free > 0 and not self._source.is_congested():
            now_s = time.monotonic()
            turn = self.hosts.next(now_s)
            if turn is not None:
                self._begin(turn, now_s)
            elif not self._read(now_s):
                return False
            if now_s - began_s > _FILL_S:
                return True
        return False

    def _read(self, now_s: float) -> bool:
        """Take some rows from the list; the less they are of use now, the more and the later the next time."""
        if self._is_read or now_s < self._read_at_s or self._later.waiting > MOST_LATER:
            return False
        items = self._source.read(self._read_size)
        if items is None:
            self._is_read = True
            return False
        placed = [self._place(item) for item in items]
        useful = not items or any(placed)
        if useful and items:
            self._read_size = _FIRST_READ
        else:
            self._read_size = min(2 * self._read_size, _MOST_READ)
            self._read_at_s = now_s + self._read_size / _MOST_READ
        return useful and bool(items)

    def _place(self, item: Item) -> bool:
        """Answer a row at once, or queue it; True when it could go on at once."""
        if item.entry.fault:
            self._finish(
                item, failed(Failure(code="bad_source", message=item.entry.fault, retryable=False), attempts=0)
            )
            return True
        known = self._source.known(item)
        if known is not None:
            self._source.done(item, known)
            return True
        host = host_of(item.entry.source)
        if self.hosts.queued(host) >= HOST_ITEMS:
            self._later.put(host, item)
            return False
        self.hosts.add(host, item)
        return self.hosts.queued(host) == 1

    def _begin(self, turn: Turn[Item], now_s: float) -> None:
        item = turn.item
        if self.hosts.queued(turn.host) < HOST_ITEMS // 2:
            for more in self._later.of_host(turn.host, HOST_ITEMS // 2):
                self.hosts.add(turn.host, more)
        if turn.given_up:
            self._finish(item, self._given_up(turn))
            return
        known = self._source.known(item)
        flying = self._flying.get(item.key)
        if known is None and flying is None:
            self._flying[item.key] = []
            task = asyncio.create_task(_Flight(self, turn).fly())
            self._tasks.add(task)
            task.add_done_callback(self._landed)
            return
        self.hosts.ended(turn, "refused", now_s)
        if known is not None:
            self._source.done(item, known)
        elif flying is not None and len(flying) < WAITERS:
            flying.append(item)
        else:
            self._later.put(turn.host, item, due_s=now_s + _FIRST_DELAY_S)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._fault = self._fault or task.exception()
        self._stirred.set()

    # ------------------------------------------------------------ end

    def _finish(self, item: Item, result: Result) -> None:
        """A result for a row and for those that name the same source."""
        self._source.done(item, result)
        for other in self._flying.pop(item.key, []):
            self._source.done(other, result)

    def judge(self, turn: Turn[Item], outcome: Outcome, result: Result) -> None:
        """The end of a scan: a result, or another try."""
        item, failure = msgspec.structs.replace(turn.item, attempts=turn.item.attempts + 1), outcome.failure
        if failure is not None:
            error = by_code().get(failure.code, Internal)
            if issubclass(error, EngineError) and error is not Internal:
                raise error(failure.message)  # not the row's fault: the next run asks again
            self._last_words[turn.host] = failure.message
            delay_s = self._delay_s(item, failure)
            if delay_s is not None and not self._stopping:
                due_s = time.monotonic() + delay_s
                for one in (item, *self._flying.pop(item.key, [])):
                    self._later.put(turn.host, one, due_s=due_s)
                return
        self._finish(item, result)

    def _delay_s(self, item: Item, failure: Failure) -> float | None:
        """After how long to try again; None when it is over."""
        busy = failure.code == "rate_limited"
        tries = max(_BUSY_TRIES, self._patience.retries) if busy and self._patience.retries else self._patience.retries
        if _ENDINGS.get(failure.code) not in {"busy", "failed"} or not failure.retryable or item.attempts > tries:
            return None
        delay_s = _FIRST_DELAY_S * _DELAY_GROWTH ** min(item.attempts - 1, 3) * random.uniform(0.75, 1.25)  # noqa: S311 - spread
        if busy:  # the host itself is paused; its rows wait in its queue
            delay_s = failure.retry_after_s or 0.0
        return delay_s if delay_s <= self._patience.longest_wait_s else None

    def _given_up(self, turn: Turn[Item]) -> Result:
        words = f"so many requests to {turn.host} failed that it is not asked any more; the last one: "
        message = words + self._last_words.get(turn.host, "no answer")
        return failed(Failure(code=HostGivenUp.code, message=message, retryable=True), attempts=turn.item.attempts)


class _Flight:
    """One scan: its slot, its host's turn, and what follows from its end."""

    def __init__(self, dispatch: Dispatch, turn: Turn[Item]) -> None:
        self._all, self._turn = dispatch, turn
        self._is_fetching, self._is_aside = True, False
        dispatch.free -= 1
        self._timer = asyncio.get_running_loop().call_later(SLOW_S, self._step_aside)

    async def fly(self) -> None:
        try:
            outcome, result = await self._all.scan(self._turn.item, self._hear)
            self._fetched(outcome)
            self._all.judge(self._turn, outcome, result)
        finally:
            self._timer.cancel()
            self._fetched(None)
            if self._is_aside:
                self._all.slow -= 1
            else:
                self._all.free += 1

    def _hear(self, stage: str, _done: float | None) -> None:
        if stage != "fetch" and self._is_fetching:
            self._fetched(None)

    def _fetched(self, outcome: Outcome | None) -> None:
        """The host has answered, or not: the turn is over. Once."""
        if not self._is_fetching:
            return
        self._is_fetching = False
        self._timer.cancel()
        failure = outcome.failure if outcome is not None else None
        ending = "answered" if failure is None else _ENDINGS.get(failure.code, "answered")
        retry_after_s = None if failure is None else failure.retry_after_s
        self._all.hosts.ended(self._turn, ending, time.monotonic(), retry_after_s=retry_after_s)
        self._all.stir()

    def _step_aside(self) -> None:
        """It takes long: let another have the slot."""
        if self._is_fetching and not self._is_aside and self._all.slow < MOST_SLOW:
            self._is_aside = True
            self._all.slow += 1
            self._all.free += 1
            self._all.stir()


def host_of(source: str) -> str:
    """Whom a source asks; "" for a file, and for what is no URL."""
    if source[:4].lower() != "http":
        return ""
    try:
        return (URL(source.strip()).authority or "").lower().rpartition("@")[2]
    except ValueError:
        return ""
