"""Programs in, the same programs running out, until a signal ends them in order.

In: `Program`s, in groups that start one after the other and stop in reverse. Out: an exit code.
One reason: whatever dies, or stands still, is started again, and what it said stands in one log under its name.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scanner.service.pulse import STOPPED_S, Pulse

log = logging.getLogger(__name__)

USAGE: Final = 2
"""A program that ends with this was told something wrong: started again it would end the same way."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_HEALTHY_S = 10.0  # who lived so long is started again at once
_LAST_WORDS_S = 5.0  # between the second signal and the kill
_LINE_BYTES = 1 << 20
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True)
class Program:
    """One to be kept running. `ready` waits until it can be used; `drain_s` is the time between the signals.

    `is_needless` is asked when it has ended: whether another does its work, so that it is not started again.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    ready: Callable[[], Awaitable[None]] | None = None
    drain_s: float = 10.0
    is_needless: Callable[[], bool] = bool
    death_signal: int = signal.SIGKILL
    """What it gets when we are killed."""


class Supervisor:
    """Keeps the programs of all groups running; `run` once."""

    def __init__(self, groups: Sequence[Sequence[Program]]) -> None:
        self._groups = groups
        self._running: dict[str, Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._status = 0

    async def run(self, started: Callable[[], None] = lambda: None) -> int:
        """Start, call `started`, keep until SIGTERM or SIGINT, stop; out: 0, or USAGE when a program said so."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal)
        try:
            if await self._start():
                started()
                await self._stopping.wait()
        finally:
            await self._stop()
        return self._status

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            log.warning("told twice to stop: killing what still runs")
            for process in self._running.values():
                _signal(process, signal.SIGKILL)
        self._stopping.set()

    async def _start(self) -> bool:
        """Start group after group; False when we are to stop before all are there."""
        for group in self._groups:
            for program in group:
                self._keepers[program.name] = asyncio.create_task(self._keep(program), name=program.name)
            for program in group:
                if program.ready is not None:
                    ready = asyncio.ensure_future(program.ready())
                    stopping = asyncio.create_task(self._stopping.wait())
                    await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
                    stopping.cancel()
                    if self._stopping.is_set():
                        ready.cancel()
                        return False
                    ready.result()
        return True

    async def _keep(self, program: Program) -> None:
        """Run it again and again."""
        pause_s = _FIRST_PAUSE_S
        while True:
            born_s = time.monotonic()
            try:
                status = await self._live(program)
                how = _how(status)
            except OSError as error:  # no descriptors, no processes, no memory left: that passes
                status, how = 1, str(error)
            if self._stopping.is_set():
                return
            if status == USAGE:
                self._status = USAGE
                self._stopping.set()
                return
            if program.is_needless():
                log.warning("%s ended (%s); another does its work", program.name, how)
                return
            pause_s = _FIRST_PAUSE_S if time.monotonic() - born_s > _HEALTHY_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            log.warning("%s ended (%s); starting it again in %.1f s", program.name, how, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return

    async def _live(self, program: Program) -> int:
        """Run it once; out: the status that it ended with. Raises OSError when it cannot be started."""
        leash = (sys.executable, "-m", "scanner.service.leash", str(os.getpid()), str(int(program.death_signal)))
        process = await asyncio.create_subprocess_exec(
            *leash,
            *program.command,
            env=program.environ,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            limit=_LINE_BYTES,
            start_new_session=True,  # a Ctrl-C in the terminal is for us
        )
        self._running[program.name] = process
        watching = asyncio.create_task(_watch(program.name, process))
        await _pass_on(program.name, process)
        status = await process.wait()
        watching.cancel()
        del self._running[program.name]
        return status

    async def _stop(self) -> None:
        """End the groups in reverse, each in its time."""
        self._stopping.set()
        for group in reversed(self._groups):
            await asyncio.gather(*(self._end(program) for program in group))

    async def _end(self, program: Program) -> None:
        keeper = self._keepers.get(program.name)
        if keeper is None:
            return
        for number, patience_s in (
            (signal.SIGTERM, program.drain_s),
            (signal.SIGTERM, _LAST_WORDS_S),
            (signal.SIGKILL, None),
        ):
            process = self._running.get(program.name)
            if process is not None:
                _signal(process, number)
            done, _ = await asyncio.wait((keeper,), timeout=patience_s)
            if done:
                return


async def _pass_on(name: str, process: Process) -> None:
    """Its lines, under its name, until it closes them."""
    assert process.stdout is not None  # noqa: S101 - PIPE
    while True:
        try:
            line = await process.stdout.readline()
        except ValueError:  # longer than a line can be: what came so far is dropped
            continue
        if not line:
            return
        moment = time.strftime("%Y-%m-%d %H:%M:%S")
        with contextlib.suppress(OSError):  # our log is full or closed: read on, or the program would wait for us
            sys.stderr.write(f"{moment} {name:<10} {line.decode(errors='replace').rstrip()}\n")
            sys.stderr.flush()


async def _watch(name: str, process: Process) -> None:
    """Kill it once it was stopped for too long: it would never end, and so never be started again."""
    pulse = Pulse(process.pid)
    while not pulse.is_lost():  # noqa: ASYNC110 - a stopped process tells nobody
        await asyncio.sleep(_LOOK_EVERY_S)
    log.error("%s has been stopped for %g s; killing it", name, STOPPED_S)
    _signal(process, signal.SIGKILL)


def _signal(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"
