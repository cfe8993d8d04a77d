"""Whether the process that reads video pages is shut in on this machine, tried and not believed.

In: settings. Out: a `PageReport` for `laescan doctor`, or NoJail for a service that may not start.
One reason: yt-dlp goes where a page sends it, so a service without walls around it is a way into its own network.
"""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import NoJail
from scanner.fetching.page import refuse_without_walls, started
from scanner.folders import scratch_folder
from scanner.settings import Settings


@dataclass(frozen=True)
class PageReport:
    """Which walls stand, and which attempts of a broken-into child were stopped."""

    walls: dict[str, bool]
    held: dict[str, bool]
    is_behind_proxy: bool = False

    @property
    def ok(self) -> bool:
        """Whether a page's video may be fetched here: what it leads to reaches our filter, and nothing else."""
        return (self.walls["network"] and self.held["network"]) or self.is_behind_proxy

    @property
    def words(self) -> tuple[str, ...]:
        """One line per wall and per attempt."""
        walls = {
            "own network with our proxy as the only way out, own processes": self.walls["network"],
            "own root folder: Python's libraries and its own folder": self.walls["files"],
            "no other program, by a filter of system calls": self.walls["filter"],
        }
        tried = {"connect past the proxy": "network", "read another file": "files", "start a program": "programs"}
        door = ("LAESCAN_EGRESS_PROXY says that the network has no other way out",) if self.is_behind_proxy else ()
        return (
            *(f"{name}: {'yes' if stands else 'no'}" for name, stands in walls.items()),
            *(f"yt-dlp's process tried to {what}: {self._outcome(name)}" for what, name in tried.items()),
            *door,
        )

    def _outcome(self, name: str) -> str:
        return "stopped" if self.held[name] else "GOT THROUGH"


async def try_walls(settings: Settings) -> PageReport:
    """Start the child and let it try to get out; raises NoJail when it dies instead of answering."""
    reached = asyncio.Event()

    async def canary(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    async with await asyncio.start_server(canary, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with scratch_folder() as folder:
            walls, held = await _attempts(folder, port)
    if reached.is_set():
        held["network"] = False  # the canary's word, not the prisoner's
    return PageReport(walls, held, bool(settings.egress_proxy))


async def _attempts(folder: Path, canary_port: int) -> tuple[dict[str, bool], dict[str, bool]]:
    """The walls around a child, and what it could not do; beside its own folder lies a file that is not for it."""
    work, secret = folder / "work", folder / "secret"
    work.mkdir()
    secret.write_bytes(b"not for pages")
    async with started(work) as child:
        await child.tell({"canary": canary_port, "path": str(secret), "max_bytes": 1_000_000, "timeout_s": 30})
        assert child.process.stdout is not None  # noqa: S101 - asked for where it was started
        answer = json.loads(await child.process.stdout.readline() or b"{}")
    if not answer:
        words = child.last_words[-500:].decode(errors="replace").strip()
        msg = f"the process that reads video pages does not start: {words or 'no word from it'}"
        raise NoJail(msg)
    return child.walls, answer


def require_walls(settings: Settings) -> None:
    """Raise NoJail where no service may start: neither namespaces, nor a proxy that is said to be the only door.

    `require_jail=False` lets it start all the same; pages are refused one by one then, pictures and videos are not.
    """
    if settings.require_jail and not settings.egress_proxy:
        try:
            refuse_without_walls(asyncio.run(try_walls(settings)).walls, settings)
        except NoJail as error:
            msg = f"{error}; with LAESCAN_REQUIRE_JAIL=false the service starts, and refuses pages only"
            raise NoJail(msg) from error
