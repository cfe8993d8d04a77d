"""Whether a process was stopped and left so: SIGSTOP, a freezer, a debugger that forgot it.

In: a pid. Out: `is_lost`, once it has been stopped for `STOPPED_S`.
One reason: a stopped process neither ends nor works, so nobody who waits for either ever hears of it.
"""

import time
from pathlib import Path
from typing import Final

STOPPED_S: Final = 10.0
"""Longer than a checkpoint or a snapshot of a machine takes; then another one in its place is worth more."""


class Pulse:
    """One process, looked at again and again."""

    def __init__(self, pid: int) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._stopped_since_s: float | None = None

    def is_lost(self) -> bool:
        """Whether it has been stopped at every look for `STOPPED_S`; one that is gone is not stopped."""
        if not self._is_stopped():
            self._stopped_since_s = None
            return False
        now_s = time.monotonic()
        if self._stopped_since_s is None:
            self._stopped_since_s = now_s
        return now_s - self._stopped_since_s >= STOPPED_S

    def _is_stopped(self) -> bool:
        """The state T of proc(5); `t`, where a debugger is at work, is not meant."""
        try:
            return self._stat.read_bytes().rpartition(b") ")[2][:1] == b"T"
        except (FileNotFoundError, ProcessLookupError):
            return False
