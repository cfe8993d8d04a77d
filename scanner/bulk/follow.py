"""A list that never ends: a file that grows, a feed (RSS, Atom), a sitemap; entries as they appear.

In: a path or a URL. Out: `Entry`s, and None when there is none for now.
One reason: who watches a source wants each new picture once, soon, and without asking the source all the time.

A feed is a stranger's: fetched through the checked sockets, 50 MB at most, and read by `scanner.bulk.links`.
"""

import asyncio
import contextlib
import csv
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from scanner.bulk.columns import (
    NAMES,
    ListError,
    choose_column,
    delimiter_of,
    has_url,
    numbered_names,
    unique_names,
)
from scanner.bulk.links import links_in
from scanner.bulk.lists import LONGEST_LINE, PACKED, Entry, Opened, form_of
from scanner.cache.urls import for_log
from scanner.cache.validators import NO_VALIDATORS, Validators
from scanner.errors import ScanError
from scanner.fetching.fetch import parse_url
from scanner.fetching.web import new_session
from scanner.settings import Settings

log = logging.getLogger(__name__)

MOST_BYTES: Final = 50_000_000
"""Of a feed; the sitemap protocol allows 52,428,800."""
EVERY_S: Final = 300.0
_TIMEOUT_S: Final = 300.0
"""For one answer; the largest comes in it at 170 kB/s."""
_MOST_SITEMAPS: Final = 1_000
_MOST_KNOWN: Final = 10_000
"""Links of earlier runs skipped at a time; to ask the journal for each costs 20 us."""
_TOO_LONG: Final = f"it has more than {LONGEST_LINE:,} characters"


def follow_file(path: Path, column: str | None = None, form: str | None = None) -> Opened:
    """What a growing file has and will have: URLs, paths, JSON objects, or a table; raises ListError."""
    form = form or form_of(path)
    if form == "parquet" or path.suffix.lower() in PACKED:
        msg = f"{path} cannot grow: only a text file, CSV, TSV or JSON lines can be followed"
        raise ListError(msg)
    lines = _whole_lines(path)
    if form in {"csv", "tsv"}:
        return _table(lines, form, str(path), column)
    return Opened(_entries(lines, column), ())


def _whole_lines(path: Path) -> Iterator[str | None]:
    """Lines that are at their end, too long ones cut at LONGEST_LINE; None when there is none now."""
    try:
        file = path.open(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise ListError(msg) from error
    line, is_rest = "", False
    with file:
        while True:
            line += file.readline(LONGEST_LINE - len(line))
            is_whole = line.endswith("\n")
            if not is_whole and len(line) < LONGEST_LINE:  # somebody is still writing it
                yield None
                continue
            if not is_rest:
                yield line
            line, is_rest = "", not is_whole


def _entries(lines: Iterator[str | None], column: str | None) -> Iterator[Entry | None]:
    row = 0
    for line in lines:
        text = None if line is None else line.strip()
        if text is None:
            yield None
        elif text and not text.startswith("#"):
            row += 1
            fault = f"row {row} cannot be read: {_TOO_LONG}"
            yield _entry(row, text, column) if len(line or "") < LONGEST_LINE else Entry(row, text[:200], fault=fault)


def _entry(row: int, line: str, column: str | None) -> Entry:
    if not line.startswith("{"):
        return Entry(row, line.replace("\0", "\\0"))
    try:
        cells = msgspec.json.decode(line, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError) as error:
        return Entry(row, line[:200], fault=f"row {row} is no JSON object ({error})")
    name = column or next((name for name in NAMES if name in cells), "url")
    source = cells.pop(name, None)
    if not isinstance(source, str) or not source:
        return Entry(row, "", cells, f"row {row} has nothing in column {name!r}")
    return Entry(row, source.replace("\0", "\\0"), cells)


# ---------------------------------------------------------------- tables

_Record = tuple[list[str], str]  # cells, or what is wrong with them


def _table(lines: Iterator[str | None], form: str, name: str, column: str | None) -> Opened:
    first = next(line for line in lines if line is None or line.strip())
    delimiter, remarks = delimiter_of(first or "", form), list[str]()
    records = _records(chain([first], lines), delimiter)
    begun = next(records)
    if begun is None or begun[1]:
        msg = f"{name} has no line yet: a table that is followed begins with the names of its columns"
        raise ListError(msg)
    head = begun[0]
    bare = has_url(head)
    names = numbered_names(len(head)) if bare else unique_names(head, remarks)
    chosen = choose_column(names, [dict(zip(names, head, strict=True))] if bare else [], column, name)
    entries = _rows(chain([begun] if bare else [], records), names, chosen)
    return Opened(entries, tuple(other for other in names if other != chosen), tuple(remarks))


def _rows(records: Iterator[_Record | None], names: Sequence[str], chosen: str) -> Iterator[Entry | None]:
    row = 0
    for record in records:
        if record is None:
            yield None
            continue
        row += 1
        cells = dict(zip_longest(names, record[0][: len(names)], fillvalue=""))
        source = cells.pop(chosen).strip().replace("\0", "\\0")
        fault = record[1] or ("" if source else f"has nothing in column {chosen!r}")
        yield Entry(row, source, dict(cells), fault and f"row {row} {fault}")


def _records(lines: Iterator[str | None], delimiter: str) -> Iterator[_Record | None]:
    """Records at their end, blank ones left out; one whose quote is never closed ends at LONGEST_LINE."""
    csv.field_size_limit(LONGEST_LINE)
    record, size = list[str](), 0
    for line in lines:
        if line is None:
            yield None
            continue
        is_inside, size = bool(record), size + len(line)
        record.append(line)
        if size >= LONGEST_LINE:
            yield [], f"cannot be read as CSV: {_TOO_LONG}"
        elif _goes_on(line, delimiter, in_quotes=is_inside):
            continue
        elif "".join(cells := next(csv.reader(record, delimiter=delimiter))).strip():
            yield cells, ""
        record, size = [], 0


def _goes_on(line: str, delimiter: str, *, in_quotes: bool) -> bool:
    """Whether a line ends inside a quoted cell: the reader of whole lists asks for another line then."""
    asked = False

    def given() -> Iterator[str]:
        nonlocal asked
        yield '"' * in_quotes + line
        asked = True

    next(csv.reader(given(), delimiter=delimiter), None)
    return asked


# ---------------------------------------------------------------- feeds


class Feed:
    """A feed or sitemap that is asked again and again; iterate `entries`, run `watch` beside it.

    Who is asked again says what it names, not what is new. What has a result is known to the journal; remembered here
    is only what came and has none yet, so this stays as small as the feed, however long it is watched.
    """

    def __init__(self, url: str, settings: Settings, *, every_s: float = EVERY_S, first_row: int = 1) -> None:
        self._url, self._settings, self._every_s, self._row = url, settings, every_s, first_row
        self._named: deque[tuple[str, str]] = deque()
        self._taken = asyncio.Event()
        self._under_way: set[str] = set()
        self._sitemaps: list[str] = []
        self._validators: dict[str, Validators] = {}

    def entries(self, is_known: Callable[[str], bool]) -> Iterator[Entry | None]:
        """What came, without what earlier runs have had."""
        while True:
            if self._named:
                self._under_way = {url for url in self._under_way if not is_known(url)}
            skipped = 0
            while self._named:
                url, page = self._named.popleft()
                if url not in self._under_way and not is_known(url):
                    self._under_way.add(url)
                    yield Entry(self._row, url, {"page": page})
                    self._row += 1
                elif (skipped := skipped + 1) % _MOST_KNOWN == 0:
                    yield None
            self._taken.set()
            yield None

    async def watch(self) -> None:
        """Ask until cancelled: the feed, and the sitemaps that it named last, though it answers 304 itself."""
        async with new_session(self._settings) as session:
            while True:
                await self._ask(session, self._url)
                for sitemap in self._sitemaps:
                    await self._ask(session, sitemap)
                asked = {self._url, *self._sitemaps}
                self._validators = {address: known for address, known in self._validators.items() if address in asked}
                await asyncio.sleep(self._every_s)

    async def _ask(self, session: aiohttp.ClientSession, address: str) -> None:
        """Once all that came before was taken; one that does not answer, or with nonsense, is asked again later."""
        await self._taken.wait()
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._read(session, address)
        except (TimeoutError, aiohttp.ClientError, ScanError, ListError) as error:
            why = error if isinstance(error, ScanError | ListError) else "no answer"  # aiohttp quotes the URL
            log.warning("%s: %s; asking again in %g s", for_log(address), why, self._every_s)

    async def _read(self, session: aiohttp.ClientSession, address: str) -> None:
        url = parse_url(address, self._settings)
        known = self._validators.get(address, NO_VALIDATORS)
        asking = session.get(
            url,
            headers={**known.headers(), "Accept-Encoding": "identity"},
            max_redirects=self._settings.max_redirects + 1,  # aiohttp refuses the one that it counts to
        )
        async with asking as response:
            if response.status == 304:
                return
            if response.status != 200:
                msg = f"it answers {response.status}"
                raise ListError(msg)
            data = await _capped(response)
        found, sitemaps = await links_in(data, self._settings.max_url_bytes)
        self._named.extend(found)
        self._taken.clear()
        if address == self._url:
            self._sitemaps = sitemaps[:_MOST_SITEMAPS]
        self._validators[address] = Validators.of(response.headers)  # last: what could not be read is asked for again


async def _capped(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MOST_BYTES:
            msg = f"it has more than {MOST_BYTES:,} bytes"
            raise ListError(msg)
    return bytes(data)


@contextlib.asynccontextmanager
async def watching(feed: Feed | None) -> AsyncIterator[None]:
    """Ask the feed while the block runs."""
    task = None if feed is None else asyncio.create_task(feed.watch(), name="laescan-feed")
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))
