"""A list as its owner has it in, one `Entry` per row out: streamed, so 10 GB of it cost no more memory than 10 kB.

    txt   one URL or path a line; blank lines and those that begin with # are none
    csv   , ; tab or | between the cells; with or without a header          tsv   the same with tabs
    jsonl one object, or one string, a line                                 parquet
    each of the first four also as .gz or .zst; `-` is standard input; a folder is every picture and video below it,
    or, when nothing but lists lies in it, their parts one after the other

One reason: what people have is never quite what they say it is. A list that is none is refused before anything is
scanned, in words; a row that cannot be read is a row with a failure, because every row gets an answer.
"""

import codecs
import csv
import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final, TextIO, cast

import msgspec

from scanner.bulk import parquet
from scanner.bulk.columns import ListError, choose_column, delimiter_of, has_url, numbered_names, unique_names
from scanner.formats import HEAD_BYTES, sniff

FORMATS: Final = ("txt", "csv", "tsv", "jsonl", "parquet")
STDIN: Final = "-"
SAMPLE_ROWS: Final = 100
"""Rows looked at to find out which column has the URLs."""
LONGEST_LINE: Final = 1_000_000
"""Characters; what has longer lines is no list."""
_SUFFIXES: Final = {
    ".txt": "txt",
    ".lst": "txt",
    ".urls": "txt",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PACKED: Final = {".gz", ".zst", ".zstd"}
_CUT_OFF = (EOFError, gzip.BadGzipFile, zlib.error)


class Entry(msgspec.Struct, frozen=True):
    """One row: its number from 1, what is to be scanned, its other columns, and why it could not be read, if so."""

    row: int
    source: str
    extra: dict[str, object] = {}
    fault: str = ""


@dataclass(frozen=True)
class Opened:
    """A list that was found to be one: its entries (to be read once), their other columns, and remarks for a person."""

    entries: Iterator[Entry | None]  # None: there is none now, there may be later (scanner.bulk.follow)
    columns: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None


def open_list(source: str, *, column: str | None = None, form: str | None = None) -> Opened:
    """Open a list; `column` names the one with the URLs, `form` is one of FORMATS where the name does not tell.

    Raises ListError when it is none, and while it is read when it ends in the middle; NoParquetError.
    """
    if source == STDIN:
        return _opened(sys.stdin.buffer, "standard input", form, column)
    path = Path(source)
    try:
        if path.is_dir():
            return _folder(path, column, form)
        return _file(path, column, form)
    except OSError as error:
        msg = f"cannot read {source}: {error.strerror or error}"
        raise ListError(msg) from error
    except parquet.ParquetError as error:
        raise ListError(str(error)) from error


# ---------------------------------------------------------------- files and folders


def _file(path: Path, column: str | None, form: str | None) -> Opened:
    form = form or form_of(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if form == "parquet" or head[:4] == b"PAR1":
        return _tabular(_numbered(_parquet(path)), parquet.columns_of(path), column, str(path))
    if sniff(head) is not None:
        msg = f"{path} is a picture or a video, not a list of them; `laescan scan` judges it"
        raise ListError(msg)
    file = path.open("rb")
    try:
        return replace(_opened(file, str(path), form, column), close=file.close)
    except BaseException:
        file.close()
        raise


def form_of(path: Path) -> str | None:
    """What a name says of a list; None when it says nothing."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


def _parquet(path: Path) -> Iterator[dict[str, object]]:
    try:
        yield from parquet.read(path)
    except parquet.ParquetError as error:
        raise ListError(str(error)) from error


def files_below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, in the order of names, hidden ones and links to folders left out; streamed."""
    with os.scandir(folder) as found:
        inside = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in inside:
        if entry.is_dir(follow_symlinks=False):
            yield from files_below(Path(entry.path))
        elif entry.is_file():
            yield Path(entry.path)


def _folder(folder: Path, column: str | None, form: str | None) -> Opened:
    parts = (path for path in files_below(folder) if not path.name.startswith("_"))  # _SUCCESS and the like
    first = next(parts, None)
    if first is None:
        msg = f"there is no file in {folder}"
        raise ListError(msg)
    if form_of(first) is not None and all(form_of(path) is not None for path in parts):
        return _parts([path for path in files_below(folder) if not path.name.startswith("_")], column, form)
    media = (path for path in files_below(folder) if _is_media(path))
    return Opened((Entry(row, str(path)) for row, path in enumerate(media, 1)), ())


def _parts(paths: Sequence[Path], column: str | None, form: str | None) -> Opened:
    """Lists that are parts of one, as Spark and others write them; the first one says which columns there are."""
    first = _file(paths[0], column, form)

    def entries() -> Iterator[Entry]:
        row = 0
        for opened in chain([first], (_file(path, column, form) for path in paths[1:])):
            for entry in filter(None, opened.entries):
                row += 1
                yield Entry(row, entry.source, entry.extra, entry.fault)

    return Opened(entries(), first.columns, first.remarks, first.close)


def _is_media(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return sniff(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False


# ---------------------------------------------------------------- text


def _opened(file: BinaryIO, name: str, form: str | None, column: str | None) -> Opened:
    """A list in bytes, packed or not, in any of the encodings that lists come in."""
    buffered = cast(
        "io.BufferedReader", file if hasattr(file, "peek") else io.BufferedReader(cast("io.RawIOBase", file))
    )
    head = buffered.peek(4)[:4]
    if head[:2] == b"\x1f\x8b":
        buffered = cast("io.BufferedReader", gzip.GzipFile(fileobj=buffered))
    elif head == b"\x28\xb5\x2f\xfd":
        buffered = cast("io.BufferedReader", parquet.open_zst(buffered))
    try:
        head = buffered.peek(4096)[:4096]
    except _CUT_OFF as error:
        msg = f"{name} is packed, but damaged: {error}"
        raise ListError(msg) from error
    encoding = _encoding(head)
    if b"\0" in head and not encoding.startswith("utf-16"):
        msg = f"{name} is binary, not a list; lists are {', '.join(FORMATS)}, also as .gz or .zst"
        raise ListError(msg)
    text = io.TextIOWrapper(buffered, encoding=encoding, errors=_MIXED, newline=None)
    return _of_lines(_lines(text, name), form or _guess(head), name, column)


def _encoding(head: bytes) -> str:
    """By its byte order mark; without one UTF-8, whose faulty bytes are read as Windows-1252."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def _as_windows(error: UnicodeError) -> tuple[str, int]:
    """Bytes that are no UTF-8 in a list that else is: somebody pasted from another machine."""
    assert isinstance(error, UnicodeDecodeError)  # noqa: S101 - registered for decoding only
    faulty = error.object[error.start : error.end]
    return faulty.decode("cp1252", "replace"), error.end


_MIXED = "laescan-mixed"
codecs.register_error(_MIXED, _as_windows)


def _guess(head: bytes) -> str:
    """The form of a list without a telling name."""
    first = head.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    line = head.partition(b"\n")[0]
    return "jsonl" if first in {b"{", b'"'} else "tsv" if b"\t" in line and b"http" in head else "txt"


def _lines(text: TextIO, name: str) -> Iterator[str]:
    """Lines with their ends; raises ListError for what is none, or ends in the middle."""
    number = 0
    with text:
        while line := _line(text, name, number):
            number += 1
            yield line


def _line(text: TextIO, name: str, number: int) -> str:
    try:
        line = text.readline(LONGEST_LINE)
    except _CUT_OFF as error:
        msg = f"{name} ends in the middle, after line {number}: {error}"
        raise ListError(msg) from error
    except OSError as error:
        msg = f"{name} cannot be read after line {number}: {error.strerror}"
        raise ListError(msg) from error
    if len(line) >= LONGEST_LINE:
        msg = f"line {number + 1} of {name} has more than {LONGEST_LINE:,} characters: this is no list"
        raise ListError(msg)
    return line


def _of_lines(lines: Iterator[str], form: str, name: str, column: str | None) -> Opened:
    if form == "txt":
        return Opened(_plain(lines), ())
    if form == "jsonl":
        return _tabular(_objects(lines), None, column, name)
    return _csv(lines, form, name, column)


def _plain(lines: Iterable[str]) -> Iterator[Entry]:
    row = 0
    for line in lines:
        source = line.strip()
        if source and not source.startswith("#"):
            row += 1
            yield Entry(row, source.replace("\0", "\\0"))


# ---------------------------------------------------------------- rows with columns

_Cells = tuple[int, dict[str, object] | str, str]  # row, cells or the source itself, fault


def _objects(lines: Iterable[str]) -> Iterator[_Cells]:
    row = 0
    for line in lines:
        if not line.strip():
            continue
        row += 1
        try:
            yield row, msgspec.json.decode(line, type=dict[str, object] | str), ""
        except (msgspec.MsgspecError, RecursionError) as error:
            yield row, line.strip()[:200], f"row {row} is neither a JSON object nor a string ({error})"


def _numbered(rows: Iterable[dict[str, object]]) -> Iterator[_Cells]:
    return ((row, cells, "") for row, cells in enumerate(rows, 1))


def _csv(lines: Iterator[str], form: str, name: str, column: str | None) -> Opened:
    first = next((line for line in lines if line.strip()), "")
    csv.field_size_limit(LONGEST_LINE)
    records = _records(csv.reader(chain([first], lines), delimiter=delimiter_of(first, form)))
    head, fault = next(records, ([], ""))
    if fault:
        raise ListError(f"{name}: {fault}")  # noqa: EM102, TRY003 - words made elsewhere
    remarks: list[str] = []
    if has_url(head):
        records = chain([(head, "")], records)
        head = numbered_names(len(head))
    names = unique_names(head, remarks)
    return _tabular(_dicts(records, names), names if first else None, column, name, remarks)


def _records(reader: "Iterator[list[str]]") -> Iterator[tuple[list[str], str]]:
    """Records that are not blank, and what is wrong with those that cannot be read."""
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield [], f"it cannot be read as CSV ({error})"
            continue
        if record and any(cell.strip() for cell in record):
            yield record, ""


def _dicts(records: Iterable[tuple[list[str], str]], names: Sequence[str]) -> Iterator[_Cells]:
    """Short records lack their last cells; the surplus of long ones gets columns of its own."""
    for row, (record, fault) in enumerate(records, 1):
        cells: dict[str, object] = dict(zip(names, record, strict=False))
        cells.update({f"column_{at}": cell for at, cell in enumerate(record[len(names) :], len(names) + 1)})
        yield row, cells, fault and f"row {row}: {fault}"


def _tabular(
    rows: Iterator[_Cells], names: Sequence[str] | None, column: str | None, name: str, remarks: Sequence[str] = ()
) -> Opened:
    """Find the column with the URLs; the others pass through."""
    sample = list(islice(rows, SAMPLE_ROWS))
    objects = [cells for _, cells, _ in sample if isinstance(cells, dict)]
    columns = list(names) if names is not None else list(dict.fromkeys(key for cells in objects for key in cells))
    if not objects:  # strings, or nothing at all
        return Opened((_entry(one, "") for one in chain(sample, rows)), ())
    chosen = choose_column(columns, objects, column, name)
    entries = (_entry(one, chosen) for one in chain(sample, rows))
    return Opened(entries, tuple(key for key in columns if key != chosen), tuple(remarks))


def _entry(one: _Cells, chosen: str) -> Entry:
    row, cells, fault = one
    if isinstance(cells, str):
        return Entry(row, cells, fault=fault)
    value = cells.get(chosen)
    source = value.strip() if isinstance(value, str) else "" if value is None else str(value)
    if not source and not fault:
        fault = f"row {row} has nothing in column {chosen!r}"
    extra = {key: other for key, other in cells.items() if key != chosen}
    return Entry(row, source.replace("\0", "\\0"), extra, fault)
