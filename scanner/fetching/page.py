"""The page of a video → its video file on disk, by yt-dlp in a killable child.

In: a URL, a folder. Out: the path of one file, not yet looked into.
One reason: whatever a page makes yt-dlp do ends with this call: the child has no route but our proxy, no environment,
and it is dead when this returns; when this raises, its files are gone too. The folder that it writes into is looked at
through a descriptor that was opened before: by its name there may be a link by now, to somebody's own pictures.
"""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scanner import errors
from scanner.fetching import extractor, pace
from scanner.fetching.body import SAVE, Progress
from scanner.fetching.egress import AddressPolicy
from scanner.fetching.proxy import Budget, FilteringProxy
from scanner.settings import Settings
from scanner.walls import kernel

logger = logging.getLogger(__name__)

# Isolated (-I): no PYTHON* variables, no user packages, no current folder. The repository root comes last on the path.
_LAUNCH = "import sys; sys.path.append(sys.argv[1]); from scanner.fetching.extractor import main; main()"
_SLACK_BYTES = 2000  # the child's error messages are short; its lines are capped by asyncio at 64 KiB
_LAST_WORDS_S, _DEATH_MS = 1.0, 5_000  # after SIGKILL; milliseconds are usual
_ROOM_S, _MOST_ROOM, _MOST_FILES = 1.0, 2, 1_000  # yt-dlp puts pieces together, so all bytes may be there twice


class _Word(msgspec.Struct, frozen=True):
    """A line of the child's: progress, or how it ended."""

    started: bool = False
    done: bool = False
    bytes: int | None = None
    total: int | None = None
    error: str = ""
    message: str = ""


async def fetch_page(url: str, *, folder: Path, settings: Settings, progress: Progress | None = None) -> Path:
    """Let yt-dlp take the video of a page into `folder`; raises a FetchError leaf, or TooLong.

    The file is at most settings.max_video_bytes; what is in it is for the caller to find out.
    """
    work = folder / "page"
    work.mkdir()
    place = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with asyncio.timeout(settings.video_timeout_s):
            await _run(url, work, place, settings, progress)
        return _moved(place, folder / "download")
    except TimeoutError:
        msg = f"the video did not arrive within {settings.video_timeout_s:g} s; save it and scan the file"
        raise errors.TimedOut(msg) from None
    finally:
        os.close(place)
        shutil.rmtree(work, ignore_errors=True)


async def _run(url: str, work: Path, place: int, settings: Settings, progress: Progress | None) -> None:
    """Start the child, open its way out, hand it the job, wait for its answer; raises when there is no file then."""
    policy, budget = AddressPolicy.from_settings(settings), Budget.from_settings(settings)
    async with started(work) as child:
        refuse_without_walls(child.walls, settings)
        async with FilteringProxy(policy, budget, listener=child.listener, outer=settings.egress_proxy) as proxy:
            await child.tell(_job(url, work, proxy.url, settings))
            answer = await _wait(child.process, proxy, place, settings, progress)
    if answer.error or not answer.done or _file(place) is None:
        raise _error(answer, proxy, settings, child.last_words)


@dataclass(frozen=True)
class Child:
    """The process of one page, shut in: `listener` is on the loopback of its own network, None where it has none.

    `last_words` is the end of what it said on standard error, whole when it is dead.
    """

    process: Process
    control: socket.socket
    listener: socket.socket | None
    walls: dict[str, bool]
    last_words: bytearray

    async def tell(self, job: dict[str, Any]) -> None:
        """Hand over its job; when it has died, reading its answer finds that out."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.control, json.dumps(job).encode() + b"\n")


@contextlib.asynccontextmanager
async def started(work: Path) -> AsyncIterator[Child]:
    """The child, told nothing yet; after the block it and all that it started are dead."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours):
        with contextlib.closing(theirs):
            process = await _start(work, theirs)
        said, first = bytearray(), None
        hearing = asyncio.ensure_future(_hear(process.stderr, said))
        try:
            walls, first, listener = await asyncio.to_thread(_receive_walls, ours)
            with listener or contextlib.nullcontext():
                yield Child(process, ours, listener, walls, said)
        finally:
            await _kill(process, first)
            rest = asyncio.ensure_future(_hear(process.stdout, bytearray()))  # an unread pipe is never closed
            await asyncio.wait({hearing, rest}, timeout=_LAST_WORDS_S)
            for task in (hearing, rest):
                task.cancel()


async def _hear(stream: asyncio.StreamReader | None, said: bytearray) -> None:
    """Keep the end of what it says; it may say gigabytes."""
    while stream and (piece := await stream.read(_SLACK_BYTES)):
        said += piece
        del said[:-_SLACK_BYTES]


async def _kill(process: Process, first: int | None) -> None:
    """Kill its group, and all of its namespace with the first process there, which may have left the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if first is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(first, signal.SIGKILL)
        await asyncio.to_thread(kernel.is_dead, first, wait_ms=_DEATH_MS)
        os.close(first)
    await process.wait()


def refuse_without_walls(walls: Mapping[str, bool], settings: Settings) -> None:
    """Raise NoJail where neither the kernel nor the network that we are in keeps yt-dlp from going elsewhere."""
    if walls and not walls["network"] and not settings.egress_proxy:
        msg = (
            "this machine cannot shut in the process that reads video pages; allow user namespaces, or put the service "
            "on an internal-only network with our proxy as its only door (LAESCAN_EGRESS_PROXY); until then "
            f"{SAVE}"
        )
        raise errors.NoJail(msg)


async def _start(work: Path, control: socket.socket) -> Process:
    """Start the child with nothing of our environment: no proxies, no `no_proxy`, no folder with programs.

    An absent PATH would mean /bin:/usr/bin, where an ffmpeg may be, so it names a folder that is not there.
    """
    root = str(Path(extractor.__file__).parents[2])
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-B", "-c", _LAUNCH, root),
        stdin=control.fileno(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=work,
        env={
            "PATH": "/nonexistent",
            "HOME": str(work),
            "TMPDIR": str(work),
            "LC_ALL": "C.UTF-8",
            "YTDLP_NO_PLUGINS": "1",
        },
        start_new_session=True,
    )


def _receive_walls(control: socket.socket) -> tuple[dict[str, bool], int | None, socket.socket | None]:
    """Which walls stand around the child, a handle of it, and the listener inside its network; none when it died."""
    data, descriptors, _, _ = socket.recv_fds(control, _SLACK_BYTES, 2)
    control.setblocking(False)  # noqa: FBT003 the standard library's signature
    first, listener = (*descriptors, None, None)[:2]
    return json.loads(data or b"{}"), first, None if listener is None else socket.socket(fileno=listener)


def _job(url: str, work: Path, proxy: str, settings: Settings) -> dict[str, Any]:
    return {
        "url": url,
        "folder": str(work),
        "proxy": proxy,
        "user_agent": "",  # video sites serve browsers; yt-dlp knows what to say to each
        "socket_timeout_s": settings.first_byte_timeout_s,
        "timeout_s": settings.video_timeout_s,
        "max_bytes": settings.max_video_bytes,
        "max_duration_s": settings.max_video_duration_s,
    }


async def _wait(
    child: Process, proxy: FilteringProxy, place: int, settings: Settings, progress: Progress | None
) -> _Word:
    """Read the child's lines to the last one, while its download keeps the minimum rate and does not fill the disk."""
    started = asyncio.Event()
    reading = asyncio.ensure_future(_read(child, started, progress))
    watching = asyncio.ensure_future(_watch(proxy, started, settings.min_rate_bytes_per_s))
    guarding = asyncio.ensure_future(_watch_room(place, settings.max_video_bytes))
    try:
        await asyncio.wait({reading, watching, guarding}, return_when=asyncio.FIRST_COMPLETED)
        for task in (watching, guarding):
            if task.done():
                task.result()
        return await reading
    finally:
        for task in (watching, guarding):
            task.cancel()
        reading.cancel()
        await asyncio.gather(reading, watching, guarding, return_exceptions=True)


async def _read(child: Process, started: asyncio.Event, progress: Progress | None) -> _Word:
    """Pass on progress; the last line is the answer, and a child that died or raves answers nothing."""
    answer = _Word()
    assert child.stdout is not None  # noqa: S101 asked for above
    try:
        async for line in child.stdout:
            answer = msgspec.json.decode(line, type=_Word)
            if answer.started:
                started.set()
            if answer.bytes is not None and progress is not None:
                progress(answer.bytes, answer.total)
    except (ValueError, RecursionError):  # msgspec's, and asyncio's for a line without end
        logger.error("yt-dlp's process says what it never would; a page may have broken into it")  # noqa: TRY400 - a trace would quote it
        return _Word()
    return answer


async def _watch(proxy: FilteringProxy, started: asyncio.Event, min_rate_bytes_per_s: int) -> None:
    """Raise TimedOut when the download brings too little; pages and manifests before it have only the total time."""
    await started.wait()
    while True:
        before = proxy.bytes
        await asyncio.sleep(pace.WINDOW_S)
        if proxy.bytes - before < min_rate_bytes_per_s * pace.WINDOW_S:
            raise errors.TimedOut(pace.TOO_SLOW)


async def _watch_room(place: int, max_bytes: int) -> None:
    """Raise TooLarge when there is more in the folder than a download and its pieces can be."""
    while True:
        await asyncio.sleep(_ROOM_S)
        files = [size for _, size in _files(place)]
        if sum(files) > _MOST_ROOM * max_bytes or len(files) > _MOST_FILES:
            msg = f"the page's download takes more room than a video of {max_bytes:,} bytes needs; {SAVE}"
            raise errors.TooLarge(msg)


def _files(place: int) -> Iterator[tuple[str, int]]:
    """The plain files in an open folder, each with what it takes on the disk; whatever else lies there is nothing."""
    with os.scandir(place) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # yt-dlp takes pieces away
                if entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat(follow_symlinks=False).st_blocks * 512


def _file(place: int) -> str | None:
    """The name of the one finished file; parts are none."""
    found = ((size, name) for name, size in _files(place) if Path(name).suffix not in {".part", ".ytdl"})
    return max(found, default=(0, None))[1]


def _moved(place: int, target: Path) -> Path:
    """The finished file, where it is wanted."""
    os.rename(str(_file(place)), target, src_dir_fd=place)
    return target


def _error(answer: _Word, proxy: FilteringProxy, settings: Settings, last_words: bytearray) -> errors.ScanError:
    """Why there is no file; what the proxy saw explains more than what yt-dlp says about it."""
    if proxy.blocked:
        return errors.BlockedAddress(
            "the page leads to an address that is not on the public internet, so its video was not fetched; "
            "save the video and scan the file, or let the operator open the network with LAESCAN_ALLOW_NETWORKS"
        )
    if "bytes" in proxy.exhausted:
        return errors.TooLarge(
            f"the video is larger than {settings.max_video_bytes:,} bytes; cut out the part in question"
        )
    if "connections" in proxy.exhausted:
        return errors.TooLarge(
            f"the video comes in pieces that need more than {settings.max_connections} connections; "
            "save it and scan the file, or let the operator raise LAESCAN_MAX_CONNECTIONS"
        )
    if "seconds" in proxy.exhausted:
        return errors.TimedOut(pace.TOO_SLOW)
    if answer.error:
        kind = errors.by_code().get(answer.error, errors.NoMedia)
        is_of_the_page = issubclass(kind, (errors.FetchError, errors.MediaError))  # others would have it tried again
        return (kind if is_of_the_page else errors.NoMedia)(answer.message[:_SLACK_BYTES])
    logger.error("yt-dlp's process died: %r", last_words.decode(errors="replace"))  # %r: a page may have written it
    return errors.NoMedia("could not take a video from this page; save the picture or video and scan the file")
