"""A piece of a list in, its rows out: what a worker does for a list that somebody else holds, and what Ray may call.

    rows = scan_shard(["https://...", ...])                        # one dict for each, in their order
    async for number, result in scan_sources([...], ...)           # as they are done

One reason: the same fetching, politeness, jail and engine run wherever a piece of a list lands.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from scanner.bulk.dispatch import Dispatch, Item
from scanner.bulk.journal import key_of
from scanner.bulk.lists import Entry
from scanner.bulk.memory import RunMemory
from scanner.bulk.polite import Patience, Policy
from scanner.bulk.rows import Result, record_of
from scanner.bulk.scan import own_network, scanning
from scanner.detection.model import Model
from scanner.engine.own import engine_for
from scanner.memory import Memory
from scanner.settings import Settings

_END: Final = None


class Piece:
    """Some sources and their results; a `dispatch.Source` that writes nothing."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._left = [Item(entry, key_of(entry.source)) for entry in reversed(entries)]
        self._by_key: dict[bytes, Result] = {}
        self._by_bytes: dict[str, Result] = {}
        self.results: asyncio.Queue[tuple[int, Result] | None] = asyncio.Queue()

    def read(self, most: int) -> list[Item] | None:
        """See Source."""
        some = [self._left.pop() for _ in range(min(most, len(self._left)))]
        return some or None

    def known(self, item: Item) -> Result | None:
        """See Source."""
        return self._by_key.get(item.key)

    def known_bytes(self, sha256: str) -> Result | None:
        """What became of these bytes in this piece."""
        return self._by_bytes.get(sha256)

    def learn(self, result: Result) -> None:
        """Let those who wait for the same bytes know."""
        if result.sha256 and result.label:
            self._by_bytes[result.sha256] = result

    def done(self, item: Item, result: Result) -> None:
        """See Source."""
        self._by_key[item.key] = result
        self.results.put_nowait((item.entry.row, result))

    def is_congested(self) -> bool:
        """See Source."""
        return False


async def scan_sources(  # noqa: PLR0913 - all that a whole list is scanned with
    entries: Sequence[Entry],
    settings: Settings,
    model: Model,
    *,
    policy: Policy,
    patience: Patience,
    with_hash: bool = True,
    further: Memory | None = None,
) -> AsyncGenerator[tuple[int, Result], None]:
    """Scan some entries; yields their row numbers and results in the order in which they are done."""
    piece = Piece(entries)
    memory = RunMemory(piece.known_bytes, with_hash=with_hash, further=further)
    async with scanning(settings, model, memory, piece) as scan:
        dispatch = Dispatch(piece, scan, policy=policy, patience=patience, unlimited=own_network(settings))
        working = asyncio.create_task(dispatch.run())
        working.add_done_callback(lambda _: piece.results.put_nowait(_END))
        try:
            while (one := await piece.results.get()) is not _END:
                yield one
            await working
        finally:
            working.cancel()
            await asyncio.wait((working,))


def scan_shard(
    sources: Sequence[str],
    *,
    settings: Settings | None = None,
    model: Model | None = None,
    policy: Policy | None = None,
    patience: Patience | None = None,
) -> list[dict[str, object]]:
    """Scan some URLs or files and answer one dict for each, in their order, with the columns of `laescan bulk`.

    The engine of this machine judges when one runs (`laescan engine`), else one that is started for this call: give it
    some hundred sources at a time. Blocks; raises EngineError when nothing can be judged here.
    """
    settings = settings or Settings.from_env(os.environ)
    entries = [Entry(row, source) for row, source in enumerate(sources, 1)]

    async def run() -> dict[int, Result]:
        async with contextlib.AsyncExitStack() as stack:
            judge = model
            if judge is None:
                judge = await stack.enter_async_context(engine_for(settings))
            found = scan_sources(
                entries, settings, judge, policy=policy or Policy(per_host_rate=25.0), patience=patience or Patience()
            )
            return {row: result async for row, result in found}

    results = asyncio.run(run())
    return [record_of(entry, results[entry.row], {}) for entry in entries]


# ---------------------------------------------------------------- over Redis

QUEUE: Final = "shards"
ROWS_TTL_S: Final = 86_400
BEAT_S: Final = 3.0
BEAT_TTL_S: Final = 15


class Shard(msgspec.Struct, frozen=True):
    """What travels to a worker: rows and sources, and what to keep to."""

    run: str
    id: str
    entries: list[Entry]
    policy: Policy
    patience: Patience
    with_hash: bool
    respect_noai: bool
    user_agent: str
    max_frames: int = Settings().max_frames

    @property
    def key(self) -> str:
        """Where it lies until it is done or taken back."""
        return f"laescan:bulk:{self.run}:shard:{self.id}"


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What comes back for one row."""

    shard: str
    row: int
    key: bytes
    result: Result


def rows_key(run: str) -> str:
    """The list to which workers push what is done."""
    return f"laescan:bulk:{run}:rows"


def beat_key(shard_key: str) -> str:
    """Says that a worker has a shard, and lives."""
    return f"{shard_key}:beat"
