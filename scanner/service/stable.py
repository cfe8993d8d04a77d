"""Where a worker keeps its one horse: a child process that scans, there when it is needed, replaced when it is gone.

In: a `Task`. Out: the horse's words, or HorseDiedError.
One reason: the worker stays light, and whatever happens to the child (`scanner.service.horse`) is one exception.
"""

import contextlib
import os
import select
import socket
import subprocess
import sys
from typing import Final

import msgspec

from scanner.contract import ScanRequest
from scanner.folders import sweep_scratch
from scanner.service.pulse import Pulse
from scanner.settings import Settings

MESSAGE_BYTES: Final = 64_000
"""Largest task: a URL of 8 kB, escaped, and its envelope."""
_GONE, _STOPPED = "the horse went away", "the horse was stopped and left so"
READY, DONE = b"ready", b"done"
LAST: Final = b"last"
"""Done, and its last scan: it goes, and another one takes its place."""
_TRIES = 3  # it may have been killed while it came up
_START_S = 30.0  # imports and the jail's self-test take 1 s, 10 s where the cores are busy


class Task(msgspec.Struct, frozen=True):
    """One attempt at one scan, as the worker hands it over."""

    id: str
    fence: int
    attempt: int
    waited_s: float
    request: ScanRequest


class HorseDiedError(Exception):
    """The child is gone, or never came up."""


class Stable:
    """The worker's one horse: there when it is needed, replaced when it is gone."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None

    def ready(self) -> None:
        """See to it that a horse waits for a task; raises HorseDiedError when it does not come up."""
        if self._process is not None and self._process.poll() is None:
            return
        for _ in range(_TRIES - 1):
            with contextlib.suppress(HorseDiedError):
                self._start()
                return
        self._start()

    def _start(self) -> None:
        self.kill()
        sweep_scratch()  # what the last one had on disk
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scanner.service.horse", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor
            )
        self._pulse = Pulse(self._process.pid)
        with contextlib.suppress(HorseDiedError):
            if self.heard(self._settings.engine_timeout_s + _START_S) == READY:
                return
        self.kill()
        msg = "the process that scans does not come up; its log tells why, and so does `laescan doctor`"
        raise HorseDiedError(msg)

    def begin(self, task: Task) -> None:
        """Hand over a task; raises HorseDiedError."""
        assert self._connection is not None  # noqa: S101 - `ready` came first
        try:
            self._connection.send(msgspec.msgpack.encode(task))
        except OSError as error:
            raise self._lost(_GONE) from error

    def heard(self, timeout_s: float) -> bytes | None:
        """Wait for the horse's next word; None when it is silent. Raises HorseDiedError when it is gone or stopped."""
        assert self._connection is not None  # noqa: S101 - `ready` came first
        if self._pulse.is_lost():
            raise self._lost(_STOPPED)
        if not select.select([self._connection], [], [], timeout_s)[0]:
            return None
        with contextlib.suppress(OSError):
            word = self._connection.recv(MESSAGE_BYTES)
            if word == LAST:
                self.kill()  # it is on its way out: a task that it was given now would be lost with it
                return DONE
            if word:
                return word
        raise self._lost(_GONE)

    def _lost(self, words: str) -> HorseDiedError:
        """Bury it: one that is still ending would look ready for the next task, and cost that one an attempt."""
        self.kill()
        return HorseDiedError(words)

    def kill(self) -> None:
        """Kill and bury it; its jail and what that runs die with it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
