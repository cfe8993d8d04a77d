"""What comes out of a list: one row for each of its rows, in a file of the form that its name says.

    .jsonl .ndjson   a line as soon as it is there        .csv .tsv   the same
    .sqlite .db      a table `rows`, as it goes           .parquet    when the list is at its end

In: results and the entries that they answer. Out: bytes on disk, counted, so that a journal can say which are sure.
One reason: a file that is appended to while its writer may be killed must be cut back to what is known to be whole.
"""

import contextlib
import csv
import io
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, get_args

import msgspec

from scanner.bulk import parquet
from scanner.bulk.lists import Entry
from scanner.contract import Failure, Outcome


class OutputError(OSError):
    """The output cannot be written: no room, no permission, or its form is unknown."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one source; null where it does not apply. `code` says why there is no label."""

    label: str | None = None
    score: float | None = None
    code: str | None = None
    message: str | None = None
    retryable: bool | None = None
    kind: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    size_bytes: int | None = None
    frames: int | None = None
    faces: int | None = None
    regions: int | None = None  # null where only faces were looked at
    worst_start_s: float | None = None
    worst_end_s: float | None = None
    sha256: str | None = None
    perceptual_hash: str | None = None
    model_id: str | None = None
    cache: str | None = None
    attempts: int = 1
    fetch_s: float | None = None
    decode_s: float | None = None
    score_s: float | None = None
    total_s: float | None = None


def _plain_type(hint: object) -> type:
    found: type = next(one for one in (get_args(hint) or (hint,)) if one is not type(None))
    return found


COLUMNS: Final[tuple[tuple[str, type], ...]] = (
    ("row", int),
    ("source", str),
    *((info.name, _plain_type(info.type)) for info in msgspec.structs.fields(Result)),
)
"""Of every output, in this order, each with its type; the list's other columns follow."""
_OURS: Final = frozenset(name for name, _ in COLUMNS)
_FIELDS: Final = tuple(info.name for info in msgspec.structs.fields(Result))


def result_of(outcome: Outcome, *, attempts: int = 1, total_s: float | None = None, phash: str | None = None) -> Result:
    """An outcome as a flat row."""
    verdict = outcome.verdict
    if verdict is None:
        assert outcome.failure is not None  # noqa: S101 - Outcome: exactly one of the two
        return failed(outcome.failure, attempts=attempts, total_s=total_s)
    media, span, timings = verdict.media, verdict.worst_span, verdict.timings_s
    return Result(
        label=verdict.label.value,
        score=verdict.score,
        kind=media.kind,
        format=media.format,
        width=media.width,
        height=media.height,
        duration_s=media.duration_s,
        size_bytes=media.size_bytes,
        frames=len(verdict.frames),
        faces=len({face.track for face in verdict.faces}),
        regions=None if verdict.region_threshold is None else len(verdict.regions),
        worst_start_s=span.start_s if span else None,
        worst_end_s=span.end_s if span else None,
        sha256=media.sha256,
        perceptual_hash=phash,
        model_id=verdict.model.model_id,
        cache=verdict.cache.kind,
        attempts=attempts,
        fetch_s=_rounded(timings.get("fetch")),
        decode_s=_rounded(timings.get("decode")),
        score_s=_rounded(timings.get("score")),
        total_s=_rounded(total_s),
    )


def failed(failure: Failure, *, attempts: int = 1, total_s: float | None = None) -> Result:
    """The row of a source that could not be judged."""
    return Result(
        code=failure.code,
        message=failure.message,
        retryable=failure.retryable,
        attempts=attempts,
        total_s=_rounded(total_s),
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def record_of(entry: Entry, result: Result, names: Mapping[str, str]) -> dict[str, object]:
    """A whole row: ours first, then the list's other columns under the `names` that they have in the output."""
    record: dict[str, object] = {"row": entry.row, "source": entry.source}
    record.update((name, getattr(result, name)) for name in _FIELDS)
    record.update((names.get(key) or outer_name(key), value) for key, value in entry.extra.items())
    return record


def outer_name(column: str) -> str:
    """What a column of the list is called in the output: as it is, unless we have one of that name."""
    return f"input_{column}" if column.lower() in _OURS else column


# ---------------------------------------------------------------- outputs


class Output(Protocol):
    """A file of rows that grows; `size` is what is surely in it, in a unit of its own (bytes, rows)."""

    def resume(self, size: int) -> None:
        """Cut back to what a journal knows; raises OutputError when there is less than that."""

    def write(self, records: Sequence[Mapping[str, object]]) -> int:
        """Append, and answer the new size once it is on disk; raises OutputError and is then as before."""

    def finish(self) -> None:
        """The list is at its end."""

    def close(self) -> None:
        """Let go of the file."""


def open_output(path: Path, columns: Sequence[str]) -> Output:
    """The output that a name asks for, its folder made where it is missing; raises OutputError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _Lines(path, _JsonLines())
        case ".csv" | ".tsv":
            return _Lines(path, _Cells(columns, "\t" if path.suffix.lower() == ".tsv" else ","))
        case ".parquet":
            return _Parquet(path)
        case ".sqlite" | ".db" | ".sqlite3":
            return _Sqlite(path, columns)
        case suffix:
            what = f"{suffix!r} is no form of output" if suffix else f"{path} has no suffix that says its form"
            msg = f"{what}; name it .jsonl, .csv, .tsv, .parquet or .sqlite"
            raise OutputError(msg)


class _JsonLines:
    head = b""
    _encoder = msgspec.json.Encoder()

    def encoded(self, record: Mapping[str, object]) -> bytes:
        return self._encoder.encode(record) + b"\n"


class _Cells:
    """CSV: the columns are those that the list was found to have; what is no text is JSON."""

    def __init__(self, columns: Sequence[str], delimiter: str) -> None:
        self._names = [name for name, _ in COLUMNS] + [outer_name(column) for column in columns]
        self._delimiter = delimiter
        self.head = self._line(self._names)

    def encoded(self, record: Mapping[str, object]) -> bytes:
        return self._line([_cell(record.get(name)) for name in self._names])

    def _line(self, cells: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter, lineterminator="\n").writerow(cells)
        return text.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _Lines:
    """A text file that is appended to."""

    def __init__(self, path: Path, form: _JsonLines | _Cells) -> None:
        self._path, self._form = path, form
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _unwritable(path, error) from error
        self._size = 0

    def resume(self, size: int) -> None:
        there = os.fstat(self._file).st_size
        if there < size:
            msg = f"{self._path} was made shorter by somebody else; give --rewrite to write it anew from the journal"
            raise OutputError(msg)
        os.ftruncate(self._file, size)
        self._size = size
        if not size and self._form.head:
            self._append(self._form.head)

    def write(self, records: Sequence[Mapping[str, object]]) -> int:
        self._append(b"".join(self._form.encoded(record) for record in records))
        return self._size

    def _append(self, data: bytes) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, data[done:], self._size + done)
            os.fdatasync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise _unwritable(self._path, error) from error
        self._size += len(data)

    def finish(self) -> None:
        """It is whole at any time."""

    def close(self) -> None:
        os.close(self._file)


class _Parquet:
    """JSON lines in `OUT.part` until the end: half a Parquet file is none."""

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._lines = _Lines(self._part, _JsonLines())

    def resume(self, size: int) -> None:
        self._lines.resume(size)

    def write(self, records: Sequence[Mapping[str, object]]) -> int:
        return self._lines.write(records)

    def finish(self) -> None:
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            parquet.write(fresh, self._typed(types := self._types()), list(types.items()))
            fresh.replace(self._path)
            self._part.unlink()
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise _unwritable(self._path, error) from error

    def close(self) -> None:
        self._lines.close()

    def _records(self) -> Iterator[dict[str, object]]:
        decoder = msgspec.json.Decoder(dict[str, object])
        with self._part.open("rb") as lines:
            for line in lines:
                yield decoder.decode(line)

    def _types(self) -> dict[str, type]:
        """Our columns as they are; each other one by all of its values, as text where they differ."""
        types: dict[str, type] = dict(COLUMNS)
        ours, seen = set(types), dict[str, set[type]]()
        for record in self._records():
            for name, value in record.items():
                if name not in ours and value is not None:
                    seen.setdefault(name, set()).add(type(value))
                elif name not in ours:
                    seen.setdefault(name, set())
        for name, kinds in seen.items():
            if kinds == {int, float}:
                kinds = {float}  # noqa: PLW2901 - whole numbers among others
            (kind,) = kinds if len(kinds) == 1 else (str,)
            types[name] = kind if kind in {int, float, bool} else str
        return types

    def _typed(self, types: Mapping[str, type]) -> Iterator[dict[str, object]]:
        for record in self._records():
            yield {
                name: value if value is None or kind is not str else _cell(value)
                for name, kind in types.items()
                for value in (record.get(name),)
            }


class _Sqlite:
    """A table whose key is the row's number: to write a row twice is to write it once."""

    _KINDS: Final = {int: "INTEGER", float: "REAL", bool: "INTEGER", str: "TEXT"}

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self._names = [name for name, _ in COLUMNS] + [outer_name(column) for column in columns]
        kinds = {name: self._KINDS[kind] for name, kind in COLUMNS}
        table = ", ".join(f"{_quoted(name)} {kinds.get(name, 'TEXT')}" for name in self._names[1:])
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute(f"CREATE TABLE IF NOT EXISTS rows (row INTEGER PRIMARY KEY, {table})")
            known = {found[1] for found in self._db.execute("PRAGMA table_info(rows)")}
            for name in self._names:
                if name not in known:
                    self._db.execute(f"ALTER TABLE rows ADD COLUMN {_quoted(name)} TEXT")
        except sqlite3.Error as error:
            raise _unwritable(path, error) from error
        places = ", ".join("?" * len(self._names))
        self._insert = f"INSERT OR REPLACE INTO rows ({', '.join(map(_quoted, self._names))}) VALUES ({places})"  # noqa: S608 - names, quoted

    def resume(self, size: int) -> None:
        (there,) = self._db.execute("SELECT count(*) FROM rows").fetchone()
        if there < size:
            msg = f"rows are gone from {self._path}; give --rewrite to write it anew from the journal"
            raise OutputError(msg)
        if not size:
            self._db.execute("DELETE FROM rows")

    def write(self, records: Sequence[Mapping[str, object]]) -> int:
        try:
            with self._transaction():
                self._db.executemany(self._insert, (self._values(record) for record in records))
            (size,) = self._db.execute("SELECT count(*) FROM rows").fetchone()
        except sqlite3.Error as error:
            raise _unwritable(self._path, error) from error
        return int(size)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _values(self, record: Mapping[str, object]) -> list[object]:
        values = (record.get(name) for name in self._names)
        return [v if v is None or isinstance(v, int | float | str) else _cell(v) for v in values]

    def finish(self) -> None:
        """It is whole at any time."""

    def close(self) -> None:
        self._db.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _unwritable(path: Path, error: Exception) -> OutputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return OutputError(f"{path} cannot be written: {why}")
