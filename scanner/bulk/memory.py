"""What a run over a list remembers while it scans: equal bytes are scanned once, and every picture gets its hash.

In: the pipeline's questions (see `scanner.memory`). Out: verdicts of the same run, perceptual hashes, drawings.
One reason: a list is full of copies under other names, and many of them come at the same moment: the first one scans,
the others wait for it.

What a scan learned is kept under its task until `take`, which every scan's end calls, however it ended.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from scanner.bulk.rows import Result
from scanner.contract import CacheInfo, Label, Media, ModelInfo, Thresholds, Verdict
from scanner.memory import Memory

if TYPE_CHECKING:
    from scanner.cache.validators import Validators
    from scanner.decoding.decode import Decoded
    from scanner.fetching.fetch import Fetched

Remembers = Callable[[str], Result | None]
"""The result for bytes by their sha256, from earlier in the list."""
Draws = Callable[[Verdict, "Decoded", str], None]
"""Hears of each fresh verdict, with its pixels and the source; blocks, in a thread."""


@dataclass
class Learned:
    """Of one scan: the digest of its bytes, the hash of its pixels, and the result of equal bytes."""

    sha256: str
    perceptual_hash: str | None = None
    copied: Result | None = None


class RunMemory:
    """`scanner.memory.Memory` for one run. `further` is asked where the run itself knows nothing."""

    def __init__(
        self,
        recalled: Remembers,
        *,
        further: Memory | None = None,
        draws: Draws | None = None,
        with_hash: bool = True,
    ) -> None:
        self._recalled, self._further, self._draws, self._with_hash = recalled, further, draws, with_hash
        self._flights: dict[str, asyncio.Event] = {}
        self._learned: dict[asyncio.Task[object], Learned] = {}

    def take(self) -> Learned | None:
        """What this task's scan has learned; who waits for the same bytes goes on. Call it when the row is known."""
        task = asyncio.current_task()
        learned = None if task is None else self._learned.pop(task, None)
        if learned is not None and learned.copied is None:
            flight = self._flights.pop(learned.sha256, None)
            if flight is not None:
                flight.set()
        return learned

    def peek(self) -> Learned | None:
        """The same, while the others still wait."""
        task = asyncio.current_task()
        return None if task is None else self._learned.get(task)

    async def expected(self, source: str) -> "tuple[Validators, Verdict] | None":
        """See Memory."""
        return None if self._further is None else await self._further.expected(source)

    async def confirm(self, source: str) -> None:
        """See Memory."""
        if self._further is not None:
            await self._further.confirm(source)

    async def recall(self, fetched: "Fetched") -> Verdict | None:
        """See Memory; waits while these bytes are being scanned."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are in one
        while (known := self._recalled(fetched.sha256)) is None and fetched.sha256 in self._flights:
            await self._flights[fetched.sha256].wait()
        self._learned[task] = Learned(fetched.sha256, copied=known)
        if known is not None:
            return _verdict_of(known)
        self._flights[fetched.sha256] = asyncio.Event()
        return None if self._further is None else await self._further.recall(fetched)

    async def recall_decoded(self, fetched: "Fetched", decoded: "Decoded") -> Verdict | None:
        """See Memory."""
        learned = self.peek()
        if learned is not None and self._with_hash and decoded.kind == "image":
            learned.perceptual_hash = await asyncio.to_thread(_hash, decoded)
        return None if self._further is None else await self._further.recall_decoded(fetched, decoded)

    async def remember(self, fetched: "Fetched", decoded: "Decoded", verdict: Verdict) -> None:
        """See Memory."""
        if self._draws is not None:
            await asyncio.to_thread(self._draws, verdict, decoded, fetched.source)
        if self._further is not None:
            await self._further.remember(fetched, decoded, verdict)


def _hash(decoded: "Decoded") -> str:
    from scanner.cache.phash import perceptual_hash  # noqa: PLC0415 - imagehash: for nothing with --no-hash

    return f"{perceptual_hash(decoded.frames[0].pixels):064x}"


def _verdict_of(result: Result) -> Verdict:
    """What is left of a verdict in its row; `Learned.copied` has the row itself."""
    media = Media(
        kind=msgspec.convert(result.kind, Media.__annotations__["kind"]),
        format=result.format or "",
        size_bytes=result.size_bytes or 0,
        width=result.width or 0,
        height=result.height or 0,
        sha256=result.sha256 or "",
        duration_s=result.duration_s,
    )
    return Verdict(
        label=Label(result.label or ""),
        score=result.score,
        thresholds=Thresholds(0.0, 1.0),
        reason="the same bytes were judged earlier in the list",
        faces=(),
        frames=(),
        media=media,
        model=ModelInfo(result.model_id or "", "", ""),
        cache=CacheInfo(kind="exact", by="sha256"),
        timings_s={},
    )
