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
    with contextlib.suppress(NoEngine):
        await asyncio.to_thread(status, path, timeout_s=1.0)
        yield await asyncio.to_thread(EngineClient.open, settings, path=path)
        return
    with scratch_folder() as folder:
        path = folder / "engine.sock"
        own = _OwnEngine(path)
        await own.start()
        keeping = asyncio.create_task(own.keep())
        try:
            yield await own.client(settings)
        finally:
            keeping.cancel()
            await own.stop()


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
        opening = asyncio.create_task(asyncio.to_thread(EngineClient.open, settings, path=self._path))
        ended = asyncio.create_task(self._process.wait())
        await asyncio.wait((opening, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not opening.done():
            opening.cancel()
            raise self._why()
        ended.cancel()
        return await opening

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
