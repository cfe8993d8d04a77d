"""How slowly a body may come: a floor under the average rate of a stream.

In: reads from a socket. Out: their bytes, or `TimedOut`.
One reason: a server that sends a byte per second must not hold a worker until the total time is over (slow loris).
"""

import asyncio
from collections.abc import Awaitable, Callable

from scanner.errors import TimedOut

WINDOW_S = 10.0
"""The rate is averaged over this long, so that a short stall of a busy server is forgiven."""

TOO_SLOW = "the server sends too slowly; try again later, or save the picture or video and scan the file"


class Pace:
    """Counts bytes against time spent waiting for them; what we do between the reads is not the server's fault."""

    def __init__(self, min_rate_bytes_per_s: float, window_s: float | None = None) -> None:
        self._window_s = WINDOW_S if window_s is None else window_s
        self._floor_bytes = min_rate_bytes_per_s * self._window_s
        self._waited_s = 0.0
        self._got_bytes = 0

    async def read(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """Return the next bytes of the stream (empty at its end); `read` must survive being cancelled and asked again.

        Raises TimedOut when a whole window brought less than the floor.
        """
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                async with asyncio.timeout(self._window_s - self._waited_s):
                    data = await read()
            except TimeoutError:
                self._close_window()
                continue
            self._waited_s += loop.time() - started
            self._got_bytes += len(data)
            if self._waited_s >= self._window_s and data:
                self._close_window()
            return data

    def _close_window(self) -> None:
        if self._got_bytes < self._floor_bytes:
            raise TimedOut(TOO_SLOW)
        self._waited_s, self._got_bytes = 0.0, 0
