"""A plan in, its output and a summary out: in this process, from fetching to the engine.

    fetchers (event loop) -> files -> jails (threads) -> engine (its process), with room for a few pictures as pixels

One reason: the slowest of the three decides how fast a list is done, as long as the others are never waited for, and
memory stays flat because what waits between them waits as files.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from scanner.bulk.book import Book, bind_model, prepare, reopen
from scanner.bulk.dispatch import Dispatch
from scanner.bulk.follow import Feed, follow_file, watching
from scanner.bulk.journal import Journal, key_of
from scanner.bulk.lists import Opened, open_list
from scanner.bulk.memory import RunMemory
from scanner.bulk.plan import ElsewhereError, Plan, Summary, fingerprint, finished, model_file, summary_of
from scanner.bulk.rows import Output, open_output
from scanner.bulk.scan import own_network, scanning
from scanner.detection.model import Model
from scanner.engine.own import engine_for
from scanner.memory import Memory
from scanner.settings import Settings

if TYPE_CHECKING:
    from scanner.bulk.gallery import Gallery
    from scanner.bulk.queued import QueueDispatch
    from scanner.bulk.served import ServiceDispatch

log = logging.getLogger(__name__)

DRAIN_S: Final = 10.0
"""After Ctrl-C, for scans that are under way."""
QUIET_START_S: Final = 2.0
"""Before somebody who waits is told what for."""

Watch = Callable[["Running"], contextlib.AbstractAsyncContextManager[None]]
"""Shows how it goes while the block runs."""
Further = Callable[[str], Memory]
"""A memory beyond this run, for a model_id."""


class Running:
    """What a progress bar looks at."""

    def __init__(self, book: Book, dispatch: "Dispatch | QueueDispatch | ServiceDispatch", total: int | None) -> None:
        self.book, self.dispatch, self.total = book, dispatch, total
        self.begun_s = time.monotonic()
        self.interrupted = False


async def run(
    plan: Plan,
    settings: Settings,
    *,
    model: Model | None = None,
    watch: Watch | None = None,
    say: Callable[[str], None] = lambda _words: None,
    further: Further | None = None,
) -> Summary:
    """Scan a list in this process; without a `model` the engine of this machine judges, or one of our own.

    Raises ListError, OutputError, EngineError, NoJail; asyncio.CancelledError after Ctrl-C, when all is written.
    """
    begun_s = time.monotonic()
    with Journal(plan.journal) as journal:
        prepare(plan, journal)
        done = finished(plan, settings, journal)
        if done is not None:
            await _report(plan, journal, None)
            return done
        reopen(plan, journal)
        opened, feed = _opened(plan, settings, journal)
        with contextlib.closing(opened), contextlib.closing(open_output(plan.out, opened.columns)) as output:
            for remark in opened.remarks:
                say(remark)
            desk = _Desk(
                journal=journal,
                opened=opened,
                output=output,
                begun_s=begun_s,
                say=say,
                watch=watch,
                further=further,
            )
            async with watching(feed):
                return await _run(plan, settings, desk, model)


@dataclass(frozen=True, kw_only=True)
class _Desk:
    """What one run works with."""

    journal: Journal
    opened: Opened
    output: Output
    begun_s: float
    say: Callable[[str], None]
    watch: Watch | None
    further: Further | None


def _opened(plan: Plan, settings: Settings, journal: Journal) -> tuple[Opened, Feed | None]:
    """The list, or what is to be followed instead."""
    if plan.follow_s is None:
        return open_list(plan.source, column=plan.column, form=plan.form), None
    if plan.source[:4].lower() != "http":
        return follow_file(Path(plan.source), plan.column, plan.form), None
    feed = Feed(plan.source, settings, every_s=plan.follow_s, first_row=journal.last_row() + 1)
    return Opened(feed.entries(lambda url: journal.result(key_of(url)) is not None), ("page",)), feed


async def _run(plan: Plan, settings: Settings, desk: _Desk, given: Model | None) -> Summary:
    before = desk.journal.count_rows()
    book = Book(desk.opened, desk.journal, desk.output)
    if plan.queue is not None or plan.api is not None:
        by = _by_service if plan.queue is None else _by_workers
        running = await by(plan, settings, desk, book)
        return await _closed(plan, settings, desk, running, before, None)
    async with _judge(settings, given, desk.say) as model:
        remark = bind_model(plan, desk.journal, model.info.model_id + settings.judging())
        if remark:
            desk.say(remark)
        limits = model.calibration
        desk.journal.set_facts(thresholds=f"{limits.authentic} {limits.manipulated}")
        gallery = _gallery(plan, desk.journal)
        further = desk.further(model.info.model_id) if desk.further else None
        memory = RunMemory(
            book.known_bytes, draws=gallery.draw if gallery else None, with_hash=plan.with_hash, further=further
        )
        async with scanning(settings, model, memory, book) as scan:
            dispatch = Dispatch(book, scan, policy=plan.policy, patience=plan.patience, unlimited=own_network(settings))
            running = Running(book, dispatch, None)
            async with (desk.watch or _unwatched)(running):
                await until_done(running)
    return await _closed(plan, settings, desk, running, before, gallery)


async def _closed(
    plan: Plan, settings: Settings, desk: _Desk, running: "Running", before: int, gallery: "Gallery | None"
) -> Summary:
    """Every row is written: bring output, journal and report into their last form."""
    book = running.book
    is_done = not running.interrupted
    if is_done and desk.journal.count_rows() != book.read_rows:
        msg = f"a bug in laescan: {book.read_rows} rows were read and {desk.journal.count_rows()} written"
        raise RuntimeError(msg)
    if is_done:
        await book.close_list()
        marks = {"model_file": model_file(settings), "finished": fingerprint(plan.source) or ""}
        desk.journal.set_facts(**marks)
    new_rows = desk.journal.count_rows() - before
    seconds = time.monotonic() - desk.begun_s
    await _report(plan, desk.journal, gallery)
    return summary_of(plan, desk.journal, seconds=seconds, new_rows=new_rows, finished=is_done)


async def _report(plan: Plan, journal: Journal, gallery: "Gallery | None") -> None:
    """The page, when it is asked for."""
    if plan.report:
        from scanner.bulk.gallery import write_report  # noqa: PLC0415 - Jinja2

        await asyncio.to_thread(write_report, plan.report, journal, plan, gallery)


async def _by_workers(plan: Plan, settings: Settings, desk: _Desk, book: Book) -> "Running":
    """Let the workers of a Redis scan; raises ElsewhereError when nothing answers there."""
    import redis  # noqa: PLC0415 - the one way that needs it

    from scanner.bulk.queued import QueueDispatch  # noqa: PLC0415

    try:
        with redis.Redis.from_url(plan.queue or "") as client:
            dispatch = QueueDispatch(
                book,
                client,
                desk.journal,
                settings,
                policy=plan.policy,
                patience=plan.patience,
                with_hash=plan.with_hash,
                unlimited=own_network(settings),
                judged_by=_binder(plan, desk, Settings(max_frames=settings.max_frames)),
            )
            return await _watched(dispatch, desk, book)
    except redis.RedisError as error:
        msg = f"no Redis answers at {plan.queue}: {error}"
        raise ElsewhereError(msg) from error


async def _by_service(plan: Plan, settings: Settings, desk: _Desk, book: Book) -> "Running":
    """Let a service scan; raises ElsewhereError when none answers there, or not to us."""
    from scanner.bulk.served import ServiceDispatch  # noqa: PLC0415 - the one way that needs it
    from scanner.bulk.service import Service  # noqa: PLC0415

    async with Service(plan.api or "", plan.token, user_agent=settings.user_agent) as service:
        dispatch = ServiceDispatch(
            book, service, desk.journal, rescan=plan.rescan, judged_by=_binder(plan, desk, Settings())
        )
        return await _watched(dispatch, desk, book)


async def _watched(dispatch: "QueueDispatch | ServiceDispatch", desk: _Desk, book: Book) -> "Running":
    running = Running(book, dispatch, None)
    async with (desk.watch or _unwatched)(running):
        await until_done(running)
    return running


def _binder(plan: Plan, desk: _Desk, told: Settings) -> Callable[[str], None]:
    """Who judges elsewhere is known with the first verdict; raises OtherModelError as `bind_model` does.

    `told` has what they were told of our settings; the others are their own.
    """
    heard: set[str] = set()

    def judged_by(model_id: str) -> None:
        if model_id not in heard:
            remark = bind_model(plan, desk.journal, model_id + told.judging())
            heard.add(model_id)
            if remark:
                desk.say(remark)

    return judged_by


async def until_done(running: Running) -> None:
    """Dispatch and write until the list is done, or until a signal has been heard and what is in flight has landed."""
    book, dispatch = running.book, running.dispatch
    loop = asyncio.get_running_loop()
    writing = asyncio.create_task(book.keep_writing(), name="laescan-bulk-writing")
    working = asyncio.create_task(dispatch.run(), name="laescan-bulk-dispatch")

    def interrupt() -> None:
        if running.interrupted:
            working.cancel()
        running.interrupted = True
        dispatch.stop()
        loop.call_later(DRAIN_S, working.cancel)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    try:
        await asyncio.wait((writing, working), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
            await writing  # raises why it ended
        book.stop_writing()
        await writing
        if not working.cancelled():
            working.result()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _judge(settings: Settings, given: Model | None, say: Callable[[str], None]) -> AsyncIterator[Model]:
    if given is not None:
        yield given
        return
    patience = asyncio.get_running_loop().call_later(QUIET_START_S, say, "the model is being loaded")
    try:
        async with engine_for(settings) as client:
            patience.cancel()
            yield client
    finally:
        patience.cancel()


@contextlib.asynccontextmanager
async def _unwatched(_running: Running) -> AsyncIterator[None]:
    yield


def _gallery(plan: Plan, journal: Journal) -> "Gallery | None":
    if plan.report is None:
        return None
    from scanner.bulk.gallery import Gallery  # noqa: PLC0415 - Pillow and OpenCV, when it is asked for

    return Gallery(plan.report, journal)
