"""A list in, one row for each of its rows out: resumable, polite, nothing twice, nothing lost.

    list -> Book (what is known?) -> Dispatch (whose turn is it?) -> Scanner (fetch, jail, engine) -> Book -> output

One reason: the book is the only one who reads the list, writes the output and knows what is done, so "exactly one row
for each row" is one object's promise, whoever scans: this process or workers elsewhere.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from scanner.bulk.columns import ListError
from scanner.bulk.dispatch import Item
from scanner.bulk.journal import Journal, key_of
from scanner.bulk.lists import Entry, Opened
from scanner.bulk.plan import LABELS, Plan
from scanner.bulk.rows import Output, OutputError, Result, outer_name, record_of
from scanner.errors import BadSource

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

log = logging.getLogger(__name__)

FLUSH_S: Final = 1.0
"""Seconds of work that a `kill -9` may cost, beside what is in flight."""
MOST_UNWRITTEN: Final = 5_000
_STRETCH: Final = 10_000  # rows of the journal looked at in one go


class OtherListError(ListError):
    """The output belongs to another list."""


class OtherModelError(OutputError):
    """The output was begun with another model."""


class Book:
    """The list, its journal and its output, for one run; a `dispatch.Source`."""

    def __init__(self, opened: Opened, journal: Journal, output: Output) -> None:
        self._entries: Iterator[Entry | None] | None = opened.entries
        self._journal, self._output = journal, output
        self._names: Mapping[str, str] = {column: outer_name(column) for column in opened.columns}
        self._done: dict[int, bytes] = {}  # rows of the stretch that is being read
        self._stretch_ends = 0
        self._last_done = journal.last_row()
        self._unwritten: list[tuple[Entry, bytes, Result]] = []
        self._fresh: dict[bytes, Result] = {}  # results that the journal does not have yet
        self._fresh_bytes: dict[str, Result] = {}
        self.read_rows = 0
        self.skipped_rows = 0  # that were in the output before
        self.tally: Counter[str] = Counter()  # of this run
        self._stopping = asyncio.Event()
        output.resume(journal.size)

    # ------------------------------------------------------------ for Dispatch

    def read(self, most: int) -> list[Item] | None:
        """The next rows that are not done; raises ListError, OtherListError."""
        if self._entries is None:
            return None
        items: list[Item] = []
        for entry in self._entries:
            if entry is None:
                return items
            self.read_rows = entry.row
            key = key_of(entry.source or f"\0row {entry.row}")
            if not self._is_done(entry, key):
                items.append(Item(entry, key))
                if len(items) >= most:
                    return items
        self._entries = None
        if self._last_done > self.read_rows:
            raise OtherListError(_other_list(f"it has {self._last_done:,} rows and the list only {self.read_rows:,}"))
        return items or None

    def known(self, item: Item) -> Result | None:
        """What is known of this source."""
        result = self._fresh.get(item.key) or self._journal.result(item.key)
        return None if result is None or result.code == BadSource.code else result

    def known_bytes(self, sha256: str) -> Result | None:
        """What is known of these bytes."""
        return self._fresh_bytes.get(sha256) or self._journal.result_of_bytes(sha256)

    def learn(self, result: Result) -> None:
        """Let those who wait for the same bytes know."""
        if result.sha256 and result.label:
            self._fresh_bytes[result.sha256] = result

    def done(self, item: Item, result: Result) -> None:
        """Take a row's result; it is written within a second."""
        if item.key not in self._fresh:
            self._fresh[item.key] = result
        self._unwritten.append((item.entry, item.key, result))
        self.tally[result.label or result.code or ""] += 1

    def is_congested(self) -> bool:
        """Whether results wait to be written."""
        return len(self._unwritten) > MOST_UNWRITTEN

    # ------------------------------------------------------------ writing

    async def keep_writing(self) -> None:
        """Write once a second, until `stop_writing`, then what is left; raises OutputError."""
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 0.01 if self.is_congested() else FLUSH_S)
            await self.flush()
        await self.flush()  # what came while the last batch was being written

    def stop_writing(self) -> None:
        """Let `keep_writing` write what is left and end: cancelled, it might lose what it is writing."""
        self._stopping.set()

    async def flush(self) -> None:
        """Write what has come: first the output, then the journal, which says that it is there."""
        batch, self._unwritten = self._unwritten, []
        if not batch:
            return
        try:
            records = [record_of(entry, result, self._names) for entry, _, result in batch]
            size = await _whole(asyncio.to_thread(self._output.write, records))
            new = {key: self._fresh[key] for _, key, _ in batch if key in self._fresh}
            self._journal.commit(list(new.items()), [(entry.row, key) for entry, key, _ in batch], size)
        except OutputError:
            self._unwritten = batch + self._unwritten
            raise
        for key, result in new.items():
            self._fresh.pop(key, None)
            if result.sha256:
                self._fresh_bytes.pop(result.sha256, None)

    async def close_list(self) -> None:
        """The list is at its end and every row is written: bring the output into its last form."""
        await asyncio.to_thread(self._output.finish)

    # ------------------------------------------------------------ within

    def _is_done(self, entry: Entry, key: bytes) -> bool:
        """Whether the output has this row, for this very source; raises OtherListError when for another."""
        if entry.row > self._last_done:
            return False
        if entry.row >= self._stretch_ends:
            self._stretch_ends = entry.row + _STRETCH
            self._done = self._journal.rows_between(entry.row, self._stretch_ends - 1)
        done = self._done.get(entry.row)
        if done is None:
            return False
        if done != key:
            raise OtherListError(_other_list(f"row {entry.row} was another source"))
        self.skipped_rows += 1
        return True


async def _whole(work: "Coroutine[None, None, int]") -> int:
    """The end of a write, whatever is cancelled meanwhile: half of it would leave output and journal apart."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        return task.result()


def _other_list(why: str) -> str:
    return (
        f"the output was written for another list, or the list was changed: {why}; name another output, "
        "or give --rewrite to write this one anew (what is known of a source is not scanned again)"
    )


def prepare(plan: Plan, journal: Journal) -> None:
    """Do to the journal what the command asks for; raises OutputError when the output is not ours to write."""
    rows = journal.count_rows()
    there = plan.out.exists() and plan.out.stat().st_size > 0
    if there and not rows and journal.fact("begun") is None and not plan.rewrite:
        msg = f"{plan.out} exists, and no journal says that it is ours; name another output, or give --rewrite"
        raise OutputError(msg)
    part = plan.out.with_name(plan.out.name + ".part")
    if rows and not there and not part.exists() and not plan.rewrite:
        msg = f"{plan.out} is gone, but its journal is not: give --rewrite to write it again, or remove {plan.journal}"
        raise OutputError(msg)
    if plan.retry_failed is not None:
        journal.rewrite(forget=plan.retry_failed or [code for code in journal.codes() if code not in LABELS])
    elif plan.rescan:
        journal.rewrite(forget_all=True)
    elif plan.rewrite:
        journal.rewrite()
    journal.set_facts(begun=str(time.time()))


def reopen(plan: Plan, journal: Journal) -> None:
    """Make a finished output one that can grow: of a Parquet file nothing was left to append to."""
    part = plan.out.with_name(plan.out.name + ".part")
    if plan.out.suffix.lower() == ".parquet" and journal.count_rows() and not part.exists():
        journal.rewrite()


def bind_model(plan: Plan, journal: Journal, model: str) -> str | None:
    """Note who judges; out: a remark when rows of another model stay. Raises OtherModelError unless that is wanted."""
    before = journal.fact("model")
    journal.set_facts(model=model)
    if before in {None, model} or journal.is_empty():
        return None
    if plan.keep:
        return f"rows of model {before} are kept; new ones are judged by {model}"
    journal.set_facts(model=before or model)
    msg = (
        f"{plan.out} was begun with model {before}, now there is {model}: give --keep to leave its rows as they are, "
        "or --rescan to scan everything again"
    )
    raise OtherModelError(msg)
