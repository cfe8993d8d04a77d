"""A list scanned by a laescan service: cut into batches, submitted, their rows taken back as they end.

In: a `dispatch.Source` and a `Service`. Out: its results. What the service knows already it answers without a scan.
One reason: whoever may ask a service but not its Redis has lists, too; and a service that is full, restarts or forgets
must cost a list nothing but time.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scanner.bulk.dispatch import Item, Source, host_of
from scanner.bulk.journal import Journal
from scanner.bulk.plan import ElsewhereError
from scanner.bulk.polite import NoHosts
from scanner.bulk.rows import Result, result_of
from scanner.bulk.service import (
    FIRST_WAIT_S,
    LONGEST_WAIT_S,
    BatchGoneError,
    BatchRefusedError,
    Row,
    Service,
    ServiceBusyError,
)

log = logging.getLogger(__name__)

BATCH_ROWS: Final = 2_000
"""A service takes 6 batches a minute of one token, unless told otherwise: 200 rows a second."""
AHEAD: Final = 4
"""Batches that are out."""
FIRST_POLL_S, LONGEST_POLL_S = 0.25, 5.0
UNFINISHED_AT_ONCE: Final = 200
"""Rows without an outcome after which the rest of a batch is not read: scans end about in order."""
_FORGOTTEN: Final = "forgotten"


@dataclass
class _Batch:
    """One that is out: its items by position, those that are missing, and how often these were submitted."""

    id: str
    missing: dict[int, Item]
    tries: int


class ServiceDispatch:
    """As `dispatch.Dispatch`, by a service elsewhere; `run` once."""

    def __init__(
        self, source: Source, service: Service, journal: Journal, *, rescan: bool, judged_by: Callable[[str], None]
    ) -> None:
        self._source, self._service, self._journal = source, service, journal
        self._rescan, self._judged_by = rescan, judged_by
        self.hosts = NoHosts()
        self._out: list[_Batch] = []
        self._unsent: list[tuple[list[Item], int]] = []  # items and how often they were submitted
        self._waiters: dict[bytes, list[Item]] = {}
        self._is_read, self._stopping, self._reached = False, False, False
        self._most_rows = BATCH_ROWS
        self._not_before_s, self._wait_s, self._poll_s = 0.0, FIRST_WAIT_S, FIRST_POLL_S

    @property
    def in_flight(self) -> int:
        """Rows that are out."""
        return sum(len(batch.missing) for batch in self._out)

    @property
    def waiting_later(self) -> int:
        """Rows that the service does not take now."""
        return sum(len(items) for items, _ in self._unsent)

    def stop(self) -> None:
        """Submit no more; what is out the service ends, and the next run finds it there."""
        if self._out and not self._stopping:
            paths = ", ".join(f"/v1/batches/{batch.id}" for batch in self._out)
            log.warning(
                "%s goes on with %d rows; the same command takes them back, DELETE %s cancels them",
                self._service.url,
                self.in_flight,
                paths,
            )
        self._stopping = True

    async def run(self) -> None:
        """Until every item has its result, or `stop`; raises ElsewhereError when the service refuses us."""
        self._mark = self._journal.fact("asked") or secrets.token_hex(8)
        self._journal.set_facts(asked=self._mark)
        while not self._is_over():
            sent = not self._stopping and await self._send()
            took = await self._take()
            self._poll_s = FIRST_POLL_S if took else min(1.5 * self._poll_s, LONGEST_POLL_S)
            if not sent and not self._is_over():
                await asyncio.sleep(self._poll_s if self._out else max(0.05, self._not_before_s - time.monotonic()))

    def _is_over(self) -> bool:
        return self._stopping or (self._is_read and not self._out and not self._unsent)

    # ------------------------------------------------------------ out

    async def _send(self) -> bool:
        """Submit the next batch, if there is one and the service takes it; True when there may be more at once."""
        if len(self._out) >= AHEAD or time.monotonic() < self._not_before_s:
            return False
        items, tries = self._unsent.pop() if self._unsent else (self._next(), 0)
        if not items:
            return False
        try:
            marks = f"{self._mark} {tries}"
            id_ = await self._service.submit(
                [item.entry.source for item in items], marks=marks, rescan=self._rescan and not tries
            )
        except ServiceBusyError as error:
            self._unsent.append((items, tries))
            self._put_off(error)
            return False
        except BatchRefusedError as error:
            self._mend(items, tries, error)
            return True
        self._reached, self._wait_s = True, FIRST_WAIT_S
        self._out.append(_Batch(id_, dict(enumerate(items)), tries))
        return True

    def _next(self) -> list[Item]:
        """Items that nobody knows yet, each source once."""
        fresh: list[Item] = []
        while len(fresh) < self._most_rows and not self._is_read and not self._source.is_congested():
            items = self._source.read(self._most_rows - len(fresh))
            if items is None:
                self._is_read = True
            if not items:
                break
            fresh += [item for item in items if self._goes_out(item)]
        return fresh

    def _goes_out(self, item: Item) -> bool:
        known = self._source.known(item)
        fault = item.entry.fault
        if not fault and not host_of(item.entry.source):
            fault = "a service is sent URLs only; leave out --api to scan files"
        if known is not None:
            self._source.done(item, known)
        elif fault:
            self._source.done(item, _faulty(fault))
        elif item.key in self._waiters:
            self._waiters[item.key].append(item)
        else:
            self._waiters[item.key] = []
            return True
        return False

    def _mend(self, items: list[Item], tries: int, error: BatchRefusedError) -> None:
        """Answer the row that is to blame and submit the others; where none is named, halve until one is left."""
        at = 0 if len(items) == 1 else error.at
        if at is not None and at < len(items):
            self._finish(items[at], _faulty(str(error)))
            halves = [items[:at] + items[at + 1 :]]
        else:  # too many, most likely
            self._most_rows = min(self._most_rows, len(items) - len(items) // 2)
            halves = [items[len(items) // 2 :], items[: len(items) // 2]]
        self._unsent += [(half, tries) for half in halves if half]

    def _put_off(self, error: ServiceBusyError) -> None:
        """Ask later; one that never answered is none that will."""
        if not self._reached and error.wait_s is None:
            msg = f"{self._service.url}: {error}"
            raise ElsewhereError(msg)
        wait_s = self._wait_s if error.wait_s is None else error.wait_s
        log.warning("%s: %s; asking again in %g s", self._service.url, error, wait_s)
        self._not_before_s = time.monotonic() + wait_s
        self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)

    # ------------------------------------------------------------ back

    async def _take(self) -> bool:
        """Take what has ended; True when that was something."""
        took = False
        for batch in list(self._out):
            if time.monotonic() < self._not_before_s:
                break
            before = len(batch.missing)
            try:
                await self._read(batch)
            except ServiceBusyError as error:
                self._put_off(error)
            except BatchGoneError:
                log.warning("%s has forgotten a batch; its %d rows are submitted again", self._service.url, before)
                self._again(batch)
            took = took or len(batch.missing) < before
            if not batch.missing and batch in self._out:
                self._out.remove(batch)
        return took

    async def _read(self, batch: _Batch) -> None:
        unfinished, forgotten = 0, False
        async with contextlib.aclosing(self._service.rows(batch.id, after=min(batch.missing))) as rows:
            async for row in rows:
                item = batch.missing.get(row.position)
                if item is None:
                    continue
                if row.source != item.entry.source:  # a position alone says nothing of what was judged
                    msg = f"{self._service.url} answers row {row.position} of a batch for another address than was sent"
                    raise ElsewhereError(msg)
                if row.outcome is not None:
                    self._accept(item, row)
                    del batch.missing[row.position]
                elif row.state == _FORGOTTEN:
                    forgotten = True
                else:
                    unfinished += 1
                    if unfinished >= UNFINISHED_AT_ONCE or self._source.is_congested():
                        break
        self._wait_s = FIRST_WAIT_S
        if forgotten and not unfinished:
            self._again(batch)

    def _accept(self, item: Item, row: Row) -> None:
        assert row.outcome is not None  # noqa: S101 - looked at by who calls
        if row.outcome.verdict is not None:
            self._judged_by(row.outcome.verdict.model.model_id)
        self._finish(item, result_of(row.outcome))

    def _again(self, batch: _Batch) -> None:
        """Submit what is missing of a batch once more, as another one."""
        self._out.remove(batch)
        if batch.missing:
            self._unsent.append((list(batch.missing.values()), batch.tries + 1))

    def _finish(self, item: Item, result: Result) -> None:
        self._source.done(item, result)
        for other in self._waiters.pop(item.key, []):
            self._source.done(other, result)


def _faulty(why: str) -> Result:
    return Result(code="bad_source", message=why, retryable=False, attempts=0)
