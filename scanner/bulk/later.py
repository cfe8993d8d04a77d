"""Items that are not for now, on disk: rows of hosts that have enough, and rows that are tried again.

In: items with a time or a host. Out: those that are due, or that their host has room for.
One reason: a host with a million rows and one request a second must not hold them all in memory, nor hold up the rest.
Nothing here survives the process: what is not done is read from the list again.
"""

import sqlite3
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import msgspec

T = TypeVar("T")
_ANY_TIME: Final = 1e18


class Later(Generic[T]):
    """A table in an unnamed database; a context manager. Raises OSError when there is no room for it."""

    def __init__(self, item_type: type[T]) -> None:
        self._decoder = msgspec.msgpack.Decoder(item_type)
        self._by_host: dict[str, int] = {}
        self.waiting = 0
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
            "CREATE TABLE later (id INTEGER PRIMARY KEY, due REAL, host TEXT, item BLOB);"
            "CREATE INDEX by_due ON later (due, id); CREATE INDEX by_host ON later (host, due, id);"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def put(self, host: str, item: T, *, due_s: float | None = None) -> None:
        """Keep an item until a time, or until its host has room."""
        try:
            row = (_ANY_TIME if due_s is None else due_s, host, msgspec.msgpack.encode(item))
            self._db.execute("INSERT INTO later (due, host, item) VALUES (?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from error
        self.waiting += 1
        if due_s is None:
            self._by_host[host] = self._by_host.get(host, 0) + 1

    def due(self, now_s: float, most: int) -> list[tuple[str, T]]:
        """The items whose time has come, the longest due first, with their hosts."""
        where = "due <= ? ORDER BY due, id LIMIT ?"
        return self._taken(where, (now_s, most))

    def next_due_s(self) -> float | None:
        """When the next one is due."""
        (due,) = self._db.execute("SELECT min(due) FROM later WHERE due < ?", (_ANY_TIME,)).fetchone()
        return None if due is None else float(due)

    def of_host(self, host: str, most: int) -> list[T]:
        """The first items that wait for room at this host."""
        if not self._by_host.get(host):
            return []
        found = self._taken("host = ? AND due = ? ORDER BY id LIMIT ?", (host, _ANY_TIME, most))
        self._by_host[host] -= len(found)
        if not self._by_host[host]:
            del self._by_host[host]
        return [item for _, item in found]

    def waiting_for(self, host: str) -> int:
        """Items that wait for room at this host."""
        return self._by_host.get(host, 0)

    def _taken(self, where: str, values: tuple[object, ...]) -> list[tuple[str, T]]:
        rows = self._db.execute(f"SELECT id, host, item FROM later WHERE {where}", values).fetchall()  # noqa: S608 - ours
        self._db.executemany("DELETE FROM later WHERE id = ?", [(row[0],) for row in rows])
        self.waiting -= len(rows)
        return [(host, self._decoder.decode(item)) for _, host, item in rows]
