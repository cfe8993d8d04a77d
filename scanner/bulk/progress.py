"""How a list comes on, for a person or for a program: rate, time left, counts by label and error, hosts that wait.

In: a running list. Out: a bar on stderr where there is a terminal, else a line now and then; or JSON lines.
One reason: a run of days must be understood at a glance, and what it waits for must have a name.
"""

import asyncio
import contextlib
import functools
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import msgspec
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scanner.bulk.plan import LABELS, counts, duration
from scanner.contract import Label
from scanner.terminal import STYLES, shown

if TYPE_CHECKING:
    from scanner.bulk.run import Running

PERIOD_S: Final = 0.5
LINE_EVERY_S: Final = 10.0
"""Where nobody looks at a terminal."""
RATE_OVER_S: Final = 30.0
SHOWN_HOSTS: Final = 3
_COUNTABLE_BYTES: Final = 2_000_000_000


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a run; `total` is an estimate, null when it cannot be known."""

    rows: int
    total: int | None
    rate: float
    eta_s: float | None
    seconds: float
    counts: dict[str, int]
    in_flight: int
    waiting: int
    hosts_waiting: list[tuple[str, float, int]]
    interrupted: bool


class Meter:
    """Rows per second over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, rows: int, now_s: float) -> float:
        """Tell it how many there are now."""
        self._seen.append((now_s, rows))
        while len(self._seen) > 1 and now_s - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        then_s, before = self._seen[0]
        return (rows - before) / (now_s - then_s) if now_s > then_s else 0.0


def glance(running: "Running", meter: Meter) -> Glance:
    """What there is to see now."""
    now_s = time.monotonic()
    new_rows = sum(running.book.tally.values())
    rows = running.book.skipped_rows + new_rows
    rate = meter.rate(new_rows, now_s)
    left = None if running.total is None else max(0, running.total - rows)
    return Glance(
        rows=rows,
        total=running.total,
        rate=round(rate, 2),
        eta_s=round(left / rate, 1) if left is not None and rate > 0 else None,
        seconds=round(now_s - running.begun_s, 1),
        counts=dict(running.book.tally.most_common()),
        in_flight=running.dispatch.in_flight,
        waiting=running.dispatch.hosts.waiting + running.dispatch.waiting_later,
        hosts_waiting=[(h, round(s, 1), n) for h, s, n in running.dispatch.hosts.blocked(now_s)[:SHOWN_HOSTS]],
        interrupted=running.interrupted,
    )


@contextlib.asynccontextmanager
async def _ticking(tick: Callable[[], None], period_s: float, *, at_once: bool = True) -> AsyncIterator[None]:
    async def run() -> None:
        if not at_once:
            await asyncio.sleep(period_s)
        while True:
            tick()
            await asyncio.sleep(period_s)

    task = asyncio.create_task(run(), name="laescan-bulk-progress")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def watch(
    running: "Running", source: str | None, *, form: str, stream: TextIO | None = None
) -> AsyncIterator[None]:
    """Show it while the block runs; `form` is bar, json or quiet; without a `source` there is no total."""
    meter, stream = Meter(), stream or sys.stderr
    counting = asyncio.create_task(asyncio.to_thread(count_rows, source))
    counting.add_done_callback(lambda done: setattr(running, "total", None if done.cancelled() else done.result()))
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(counting.cancel)
        if form == "json":

            def tick() -> None:
                stream.write(msgspec.json.encode(glance(running, meter)).decode() + "\n")
                stream.flush()

            await stack.enter_async_context(_ticking(tick, 1.0))
            stack.callback(tick)
        elif form == "bar" and console.is_terminal:
            live = stack.enter_context(Live(console=console, transient=True, auto_refresh=False))
            ticker = _ticking(lambda: live.update(_drawn(glance(running, meter)), refresh=True), PERIOD_S)
            await stack.enter_async_context(ticker)
        elif form == "bar":
            told = functools.partial(console.print, soft_wrap=True)
            ticker = _ticking(lambda: told(line(glance(running, meter))), LINE_EVERY_S, at_once=False)
            await stack.enter_async_context(ticker)
        yield


def line(seen: Glance) -> str:
    """One line, e.g. for a log."""
    of = "" if seen.total is None else f" of {seen.total:,}"
    eta = "" if seen.eta_s is None else f", {duration(seen.eta_s)} left"
    return f"{seen.rows:,}{of} rows, {seen.rate:.1f}/s{eta}; {counts(seen.counts)}{_waits(seen)}"


def _waits(seen: Glance) -> str:
    if seen.interrupted:
        return f"; finishing {seen.in_flight} scans that are under way"
    hosts = ", ".join(f"{shown(host)} ({rows:,} rows, {duration(left)})" for host, left, rows in seen.hosts_waiting)
    return f"; waiting for {hosts}" if hosts else ""


def _drawn(seen: Glance) -> Table:
    """A bar and, below it, what came of the rows so far."""
    table = Table.grid(padding=(0, 1))
    head = Table.grid(padding=(0, 1))
    of = "" if seen.total is None else f" of {seen.total:,}"
    eta = "" if seen.eta_s is None else f"{duration(seen.eta_s)} left"
    bar = ProgressBar(total=seen.total, completed=seen.rows, width=30, pulse=seen.total is None)
    head.add_row(bar, Text(f"{seen.rows:,}{of} rows"), Text(f"{seen.rate:.1f}/s"), Text(eta))
    table.add_row(head)
    words = Text()
    for name in counts(seen.counts).split(", "):
        label = name.rpartition(" ")[2]
        style = STYLES.get(Label(label), "") if label in LABELS else "red"
        words.append(name + "  ", "dim" if name == "nothing yet" else style)
    words.append(f"{seen.in_flight} in flight" + _waits(seen), "dim")
    table.add_row(words)
    return table


def count_rows(source: str | None) -> int | None:
    """About how many rows a list has, quickly; None when only reading it would tell."""
    from scanner.bulk.lists import form_of  # noqa: PLC0415 - a thread's work

    if source is None or source == "-":
        return None
    path = Path(source)
    if not path.is_file() or path.stat().st_size > _COUNTABLE_BYTES:
        return None
    form = form_of(path)
    if form == "parquet" or path.suffix in {".gz", ".zst", ".zstd"}:
        return None
    with path.open("rb") as file:
        lines, last = 0, b""
        while piece := file.read(1 << 20):
            lines, last = lines + piece.count(b"\n"), piece
    return max(0, lines + (not last.endswith(b"\n")) - (form in {"csv", "tsv"}))
