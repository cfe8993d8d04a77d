"""One scan of a list's row, and what all of them share: the HTTP client, the jail, the room for pixels.

In: settings, a model, what the run remembers. Out: a function that scans one item.
One reason: a list is scanned the same way in this process and by a worker that got a piece of it.
"""

import asyncio
import os
import resource
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import Final, Protocol

import msgspec

from scanner.bulk.dispatch import Item, Scan
from scanner.bulk.memory import RunMemory
from scanner.bulk.rows import Result, result_of
from scanner.contract import Outcome
from scanner.decoding.room import Room
from scanner.detection.model import Model
from scanner.fetching.web import Web
from scanner.folders import Scratch, scratch_folder
from scanner.pipeline import Progress, Scanner
from scanner.settings import Settings

_THREADS: Final = 64


class Learns(Protocol):
    """Who tells others of bytes that were judged."""

    def learn(self, result: Result) -> None:
        """Let those who wait for the same bytes know."""


@asynccontextmanager
async def scanning(settings: Settings, model: Model, memory: RunMemory, book: Learns) -> AsyncIterator[Scan]:
    """What scans one item, with everything that many scans share."""
    _raise_file_limit()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "laescan-bulk"))
    room = Room(len(os.sched_getaffinity(0)) + 2)
    async with Web(settings) as web:
        with (
            scratch_folder() as folder,
            Scanner(settings, model=model, memory=memory, web=web, room=room, scratch=Scratch(folder)) as scanner,
        ):

            async def scan(item: Item, progress: Progress) -> tuple[Outcome, Result]:
                begun_s = time.monotonic()
                try:
                    scanned = await scanner.scan(item.entry.source, progress=progress, urgent=False)
                    learned, attempts = memory.peek(), item.attempts + 1
                    took_s = time.monotonic() - begun_s
                    phash = learned.perceptual_hash if learned else None
                    result = result_of(scanned.outcome, attempts=attempts, total_s=took_s, phash=phash)
                    if learned is not None and learned.copied is not None:
                        result = _copy(learned.copied, result)
                    book.learn(result)
                    return scanned.outcome, result
                finally:
                    memory.take()

            yield scan


def _copy(known: Result, fresh: Result) -> Result:
    """The result of equal bytes, as that of this source."""
    return msgspec.structs.replace(
        known,
        cache="exact",
        attempts=fresh.attempts,
        fetch_s=fresh.fetch_s,
        decode_s=None,
        score_s=None,
        total_s=fresh.total_s,
    )


def own_network(settings: Settings) -> Callable[[str], bool]:
    """Whether a host is an address that the operator has opened: it is theirs, and needs no rate."""
    networks = [ip_network(text) for text in settings.allow_networks]

    def is_own(host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        try:
            address = ip_address(name.strip("[]"))
        except ValueError:
            return False
        return any(address in network for network in networks)

    return is_own


def _raise_file_limit() -> None:
    """A fetch holds a socket and a few files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
