"""A list that never ends: a file that grows, a feed (RSS, Atom), a sitemap; entries as they appear.

In: a path or a URL. Out: `Entry`s, and None when there is none for now.
One reason: who watches a source wants each new picture once, soon, and without asking the source all the time.

A feed is a stranger's: fetched through the checked sockets, read by expat with entities refused, 50 MB at most.
"""

import asyncio
import contextlib
import csv
import io
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Final
from xml.parsers import expat

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
_MEDIA: Final = {"enclosure": "url", "content": "url", "thumbnail": "url"}  # RSS, and media RSS
_LOCATIONS: Final = frozenset({"loc", "content_loc", "thumbnail_loc"})


def follow_file(path: Path, column: str | None = None, form: str | None = None) -> Opened:
    """What a growing file has and will have: URLs, paths, JSON objects, or a table; raises ListError."""
    form = form or form_of(path)
    if form == "parquet" or path.suffix.lower() in PACKED:
        msg = f"{path} cannot grow: only a text file, CSV, TSV or JSON lines can be followed"
        raise ListError(msg)
    lines = _whole_lines(path, is_table=form in {"csv", "tsv"})
    if form in {"csv", "tsv"}:
        return _table(lines, form, str(path), column)
    return Opened(_entries(lines, column), ())


def _whole_lines(path: Path, *, is_table: bool) -> Iterator[str | None]:
    """Lines that are at their end, blank ones left out; None when there is none now."""
    try:
        file = path.open(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise ListError(msg) from error
    line = ""
    with file:
        while True:
            line += file.readline(LONGEST_LINE)
            is_whole = line.endswith("\n") and not (is_table and line.count('"') % 2)  # a cell may have lines, too
            if not is_whole:  # somebody is still writing it
                yield None
                continue
            if line.strip():
                yield line
            line = ""


def _entries(lines: Iterator[str | None], column: str | None) -> Iterator[Entry | None]:
    row = 0
    for line in lines:
        text = None if line is None else line.strip()
        if text is None:
            yield None
        elif not text.startswith("#"):
            row += 1
            yield _entry(row, text, column)


def _table(lines: Iterator[str | None], form: str, name: str, column: str | None) -> Opened:
    first = next(lines)
    if first is None:
        msg = f"{name} has no line yet: a table that is followed begins with the names of its columns"
        raise ListError(msg)
    delimiter, remarks = delimiter_of(first, form), list[str]()

    def cells_of(line: str) -> list[str]:
        return next(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter))

    head = cells_of(first)
    bare = has_url(head)
    names = numbered_names(len(head)) if bare else unique_names(head, remarks)
    chosen = choose_column(names, [dict(zip(names, head, strict=True))] if bare else [], column, name)

    def entries() -> Iterator[Entry | None]:
        row = 0
        for line in chain([first] if bare else [], lines):
            if line is None:
                yield None
                continue
            row += 1
            cells = dict(zip_longest(names, cells_of(line)[: len(names)], fillvalue=""))
            source = cells.pop(chosen).strip().replace("\0", "\\0")
            yield Entry(row, source, dict(cells), "" if source else f"row {row} has nothing in column {chosen!r}")

    return Opened(entries(), tuple(other for other in names if other != chosen), tuple(remarks))


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


# ---------------------------------------------------------------- feeds


def links_in(data: bytes) -> tuple[list[tuple[str, str]], list[str]]:
    """What a feed or sitemap names: (URL, page it belongs to) of media, else of pages; and further sitemaps.

    Raises ListError when it is neither.
    """
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = reading.start, reading.end
    parser.CharacterDataHandler = reading.text
    parser.EntityDeclHandler = _refuse_entities
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat's own signature
    except expat.ExpatError as error:
        msg = f"it is no feed and no sitemap: {error}"
        raise ListError(msg) from error
    return reading.found, reading.sitemaps


def _refuse_entities(*_: object) -> None:
    msg = "it defines entities, which no feed needs"
    raise ListError(msg)


class _Reading:
    """Items of a feed while it is parsed."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.sitemaps: list[str] = []
        self._text, self._page = "", ""
        self._media: list[str] = []

    def start(self, name: str, attributes: Mapping[str, str]) -> None:
        self._text, local = "", name.rpartition(" ")[2]
        if local in {"item", "entry", "url", "sitemap"}:
            self._page, self._media = "", []
        elif local in _MEDIA and attributes.get(_MEDIA[local]):
            self._media.append(attributes[_MEDIA[local]])
        elif local == "link" and attributes.get("href"):
            if attributes.get("rel") == "enclosure":
                self._media.append(attributes["href"])
            elif attributes.get("rel", "alternate") == "alternate":
                self._page = attributes["href"]

    def text(self, data: str) -> None:
        self._text += data

    def end(self, name: str) -> None:
        namespace, _, local = name.rpartition(" ")
        if local in _LOCATIONS and ("image" in namespace or "video" in namespace):
            self._media += [self._text.strip()]
        elif local in {"loc", "link"} and self._text.strip():
            self._page = self._text.strip()
        elif local == "sitemap":
            self.sitemaps.append(self._page)
        elif local in {"item", "entry", "url"}:
            urls = dict.fromkeys(self._media) or [self._page]
            self.found += [(url, self._page) for url in urls if url]
        self._text = ""


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
            while self._named:
                url, page = self._named.popleft()
                if url not in self._under_way and not is_known(url):
                    self._under_way.add(url)
                    yield Entry(self._row, url, {"page": page})
                    self._row += 1
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
        found, sitemaps = links_in(data)
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
