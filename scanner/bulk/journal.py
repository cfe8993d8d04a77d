"""What is done of a list, beside its output: so that the same command, given again, goes on where it was killed.

    results   by source (16 bytes of a digest): what became of it, whatever rows name it
    media     by sha256: the source whose result holds for these very bytes
    rows      by number: which source's result was written to the output
    facts     the output's size up to which it is sure, the model, the list as it was

In: results, in batches. Out: what is known already.
One reason: the output is written first and the journal after it, in one transaction that says how long the output now
is. Whatever moment a `kill -9` picks, the output is cut back to that length, and no row is lost or there twice.
"""

import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from scanner.bulk.rows import OutputError, Result
from scanner.contract import Label

SCHEMA: Final = "2"  # 1 had no column `regions`
_LABELS: Final = tuple(label.value for label in Label)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, code TEXT, result BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS media (sha256 BLOB PRIMARY KEY, key BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rows (row INTEGER PRIMARY KEY, key BLOB);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shown (key BLOB PRIMARY KEY, rank REAL, source TEXT, file TEXT) WITHOUT ROWID;
"""


def key_of(source: str) -> bytes:
    """The name of a source in the journal: URLs that a server cannot tell apart are one."""
    from scanner.cache.urls import canonical_url  # noqa: PLC0415 - with redis, which a list that is done can do without

    same = canonical_url(source) if "://" in source else source
    return hashlib.blake2b(same.encode("utf-8", "surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True)
class Shown:
    """A picture drawn for the report: how surely it is manipulated, whose it is, and the file beside the page."""

    rank: float
    source: str
    file: str


class Scored(msgspec.Struct, frozen=True):
    """What a histogram needs of a result."""

    label: str | None = None
    score: float | None = None


class Journal:
    """A database `OUT.journal`; one thread at a time. Every method raises OutputError when the disk is full."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder = msgspec.msgpack.Decoder(Result)
        self._lock = self._locked()
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")  # a power cut may undo the last second, and that whole
            self._db.executescript(_TABLES)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise self._fault(error) from error
        if self.fact("schema") not in {None, SCHEMA}:
            msg = f"{path} was written by another version of laescan; give another output, or remove it"
            raise OutputError(msg)
        self.set_facts(schema=SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ facts

    def fact(self, name: str) -> str | None:
        """Something that was noted."""
        found = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])

    def set_facts(self, **facts: str) -> None:
        """Note some."""
        self._many("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    @property
    def size(self) -> int:
        """The size up to which the output is sure."""
        return int(self.fact("size") or 0)

    # ------------------------------------------------------------ results

    def result(self, key: bytes) -> Result | None:
        """What became of a source."""
        found = self._db.execute("SELECT result FROM results WHERE key = ?", (key,)).fetchone()
        return None if found is None else self._decoder.decode(found[0])

    def result_of_bytes(self, sha256: str) -> Result | None:
        """What became of a source that had these very bytes."""
        query = "SELECT r.result FROM media m JOIN results r ON r.key = m.key WHERE m.sha256 = ?"
        found = self._db.execute(query, (bytes.fromhex(sha256),)).fetchone()
        return None if found is None else self._decoder.decode(found[0])

    def rows_between(self, first: int, last: int) -> dict[int, bytes]:
        """The rows of a stretch of the list that are in the output, with the sources that they had."""
        return dict(self._db.execute("SELECT row, key FROM rows WHERE row BETWEEN ? AND ?", (first, last)))

    def last_row(self) -> int:
        """The greatest number of a row in the output; 0 without any."""
        return int(self._db.execute("SELECT coalesce(max(row), 0) FROM rows").fetchone()[0])

    def count_rows(self) -> int:
        """Rows in the output."""
        return int(self._db.execute("SELECT count(*) FROM rows").fetchone()[0])

    def is_empty(self) -> bool:
        """Whether nothing is known of any source."""
        return self._db.execute("SELECT 1 FROM results LIMIT 1").fetchone() is None

    def tally(self) -> dict[str, int]:
        """Rows in the output by label or code."""
        query = "SELECT r.code, count(*) FROM rows JOIN results r USING (key) GROUP BY r.code"
        return {str(code): int(count) for code, count in self._db.execute(query)}

    def codes(self) -> list[str]:
        """Every label and code that a result has."""
        return [str(code) for (code,) in self._db.execute("SELECT DISTINCT code FROM results")]

    def scored(self) -> Iterator[tuple[bytes, Scored]]:
        """Every source that has a score; for the report."""
        decoder = msgspec.msgpack.Decoder(Scored)
        for key, data in self._db.execute("SELECT key, result FROM results"):
            found = decoder.decode(data)
            if found.score is not None:
                yield bytes(key), found

    def first_rows(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """The first row in the output that names each of some sources; for the report."""
        marks = ", ".join("?" * len(keys))
        query = f"SELECT key, min(row) FROM rows WHERE key IN ({marks}) GROUP BY key"  # noqa: S608 - marks
        return {bytes(key): int(row) for key, row in self._db.execute(query, keys)}

    def commit(self, new: Sequence[tuple[bytes, Result]], rows: Sequence[tuple[int, bytes]], size: int) -> None:
        """Note what was just written to the output, at once: all of it or nothing."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?)",
                ((key, result.label or result.code, msgspec.msgpack.encode(result)) for key, result in new),
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO media VALUES (?, ?)",
                ((bytes.fromhex(result.sha256), key) for key, result in new if result.sha256 and result.label),
            )
            self._db.executemany("INSERT INTO rows VALUES (?, ?)", rows)
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('size', ?)", (str(size),))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._fault(error) from error

    def rewrite(self, *, forget: Iterable[str] | None = None, forget_all: bool = False) -> None:
        """Have the output written anew; first forget the results with these codes, or all of them."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("DELETE FROM rows")
            self._db.executemany("DELETE FROM results WHERE code = ?", ((code,) for code in forget or ()))
            if forget_all:
                for table in ("results", "media", "shown"):
                    self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - one of three words
                self._db.execute("DELETE FROM facts WHERE name = 'model'")
            self._db.execute("DELETE FROM facts WHERE name IN ('size', 'finished', 'list', 'asked')")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._fault(error) from error

    # ------------------------------------------------------------ pictures of the report

    def show(self, key: bytes, shown: Shown, most: int) -> list[str]:
        """Keep a picture among the surest `most`; out: files that are not shown any more."""
        self._many("INSERT OR REPLACE INTO shown VALUES (?, ?, ?, ?)", [(key, shown.rank, shown.source, shown.file)])
        query = "SELECT key, file FROM shown ORDER BY rank DESC LIMIT -1 OFFSET ?"
        surplus = self._db.execute(query, (most,)).fetchall()
        self._many("DELETE FROM shown WHERE key = ?", [(gone,) for gone, _ in surplus])
        return [str(file) for _, file in surplus]

    def shown(self) -> dict[bytes, Shown]:
        """The pictures of the report by their sources, surest first."""
        rows = self._db.execute("SELECT key, rank, source, file FROM shown ORDER BY rank DESC")
        return {bytes(key): Shown(float(rank), str(source), str(file)) for key, rank, source, file in rows}

    def failures(self, most: int) -> list[tuple[int, Result]]:
        """Some rows that could not be judged, for the report: the first of each code, then more, in their order."""
        marks = ", ".join("?" * len(_LABELS))
        query = (
            "SELECT row, result FROM (SELECT row, result, row_number() OVER (PARTITION BY code ORDER BY row) AS nth "  # noqa: S608 - marks
            f"FROM rows JOIN results USING (key) WHERE code NOT IN ({marks})) ORDER BY nth, row LIMIT ?"
        )
        found = self._db.execute(query, (*_LABELS, most))
        return sorted((int(row), self._decoder.decode(data)) for row, data in found)

    # ------------------------------------------------------------ within

    def _many(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        try:
            self._db.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _locked(self) -> int:
        """Two runs on one output would tear it to pieces; the kernel drops the lock with its process."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            msg = f"{self.path} cannot be written: {error.strerror}"
            raise OutputError(msg) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            msg = f"another `laescan bulk` writes to this output ({self.path} is in use)"
            raise OutputError(msg) from error
        return descriptor

    def _fault(self, error: sqlite3.Error) -> OutputError:
        return OutputError(f"{self.path} cannot be written: {error}")
