"""Room for pixels: a few media are decoded at once, and a few more may wait for the model as pixels.

In: media that want to be decoded, and how many bytes they then are. Out: leave to go on.
One reason: pixels are ten to a hundred times their file. With one limit for both, a slow model's batch held every
place, nothing was decoded meanwhile, and batches of five and of one took turns (measured with 6 places on 2 cores).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

MOST_BYTES: Final = 64 * 2**20
"""Of small pictures that wait for the model, beyond the `least` that may whatever their size."""


class Room:
    """For one event loop; who has waited longest is not always first."""

    def __init__(self, least: int, most_bytes: int = MOST_BYTES) -> None:
        self._least, self._most_bytes = least, most_bytes
        self._decoding = asyncio.Semaphore(least)
        self._count, self._bytes = 0, 0
        self._left = asyncio.Event()

    def decoding(self) -> asyncio.Semaphore:
        """A place while a medium becomes pixels, and until these have theirs."""
        return self._decoding

    @asynccontextmanager
    async def holding(self, size_bytes: int) -> AsyncIterator[None]:
        """A place for so many bytes of pixels; waits for others to go."""
        while self._count >= self._least and self._bytes + size_bytes > self._most_bytes:
            self._left.clear()
            await self._left.wait()
        self._count += 1
        self._bytes += size_bytes
        try:
            yield
        finally:
            self._count -= 1
            self._bytes -= size_bytes
            self._left.set()
