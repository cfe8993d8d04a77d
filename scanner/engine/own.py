"""The engine that a command uses: the one that answers already, else one of its own for as long as it runs.

In: settings. Out: a client of an engine.
One reason: a list is judged in shared batches by a process that holds the model, while this one fetches and decodes;
should that process die, another takes its place and the list goes on.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

from scanner.engine import wire
from scanner.engine.client import EngineClient, status
from scanner.errors import EngineError, NoEngine, by_code
from scanner.folders import scratch_folder
from scanner.settings import PREFIX, Settings

log = logging.getLogger(__name__)

_PAUSE_S = 0.5
_WORDS_BYTES = 4_000
_LAST_WORDS = 500  # characters of them that somebody is told


@contextlib.asynccontextmanager
async def engine_for(settings: Settings) -> AsyncIterator[EngineClient]:
    """A client of the engine at the settings' place, or of our own; raises BadWeights or NoEngine."""
    path = wire.socket_path(settings)
    if await asyncio.to_thread(_answers, path):
        yield await asyncio.to_thread(EngineClient.open, settings, path=path)
        return
    with scratch_folder() as folder:
        own = _OwnEngine(folder / "engine.sock")
        await own.start()
        async with contextlib.AsyncExitStack() as at_end:
            at_end.push_async_callback(own.stop)
            client = await own.client(settings)
            at_end.callback(asyncio.create_task(own.keep()).cancel)
            yield client


def _answers(path: Path) -> bool:
    try:
        status(path, timeout_s=1.0)
    except NoEngine:
        return False
    return True


class _OwnEngine:
    """A child process that dies with us."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, path.with_suffix(".log")

    async def start(self) -> None:
        leash = (sys.executable, "-m", "scanner.service.leash", str(os.getpid()), str(int(signal.SIGKILL)))
        command = (*leash, sys.executable, "-m", "scanner.cli", "engine", "--socket", str(self._path))
        environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        environ.pop(f"{PREFIX}ENGINE_SOCKET", None)
        with self._log.open("ab") as words:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                start_new_session=True,
            )

    async def client(self, settings: Settings) -> EngineClient:
        """Once it answers; raises what it said when it ended instead."""
        over = threading.Event()
        opening = asyncio.create_task(
            asyncio.to_thread(EngineClient.open, settings, path=self._path, is_over=over.is_set)
        )
        ended = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait((opening, ended), return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                return opening.result()
            raise self._why()
        finally:
            over.set()
            opening.cancel()
            ended.cancel()

    async def keep(self) -> None:
        """Start it again whenever it has died; those who wait for its answer ask the next one."""
        while True:
            await self._process.wait()
            log.warning("the engine ended; starting it again: %s", str(self._why())[-_LAST_WORDS:])
            await asyncio.sleep(_PAUSE_S)
            await self.start()

    async def stop(self) -> None:
        """Kill and bury it: nobody waits for its answers any more."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    def _why(self) -> EngineError:
        """What it said last: `laescan: CODE: words` when it knew."""
        said = self._log.read_bytes()[-_WORDS_BYTES:].decode(errors="replace").strip()
        for line in reversed(said.splitlines()):
            code, _, words = line.removeprefix("laescan: ").partition(": ")
            error = by_code().get(code)
            if line.startswith("laescan: ") and error is not None and issubclass(error, EngineError):
                return error(words)
        return NoEngine(f"the engine ended: {said[-_LAST_WORDS:] or 'it said nothing'}")
