"""The page of a video → its video file on disk, by yt-dlp in a killable child.

In: a URL, a folder. Out: the path of one file, not yet looked into.
One reason: whatever a page makes yt-dlp do ends with this call: the child has no route but our proxy, no environment,
and it is dead when this returns; when this raises, its files are gone too.
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
from collections.abc import AsyncIterator, Mapping
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

logger = logging.getLogger(__name__)

# Isolated (-I): no PYTHON* variables, no user packages, no current folder. The repository root comes last on the path.
_LAUNCH = "import sys; sys.path.append(sys.argv[1]); from scanner.fetching.extractor import main; main()"
_SLACK_BYTES = 2000  # the child's error messages are short; its lines are capped by asyncio at 64 KiB


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
    try:
        async with asyncio.timeout(settings.video_timeout_s):
            return await _run(url, work, settings, progress)
    except TimeoutError:
        msg = f"the video did not arrive within {settings.video_timeout_s:g} s; save it and scan the file"
        raise errors.TimedOut(msg) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


async def _run(url: str, work: Path, settings: Settings, progress: Progress | None) -> Path:
    """Start the child, open its way out, hand it the job, wait for its answer."""
    (work / "out").mkdir()
    policy, budget = AddressPolicy.from_settings(settings), Budget.from_settings(settings)
    async with started(work) as child:
        refuse_without_walls(child.walls, settings)
        async with FilteringProxy(policy, budget, listener=child.listener, outer=settings.egress_proxy) as proxy:
            await child.tell(_job(url, work, proxy.url, settings))
            answer = await _wait(child.process, proxy, settings, progress)
    found = _file(work / "out")
    if found is None or answer.error:
        raise _error(answer, proxy, settings, (work / "stderr").read_text("utf-8", "replace"))
    return found.rename(work.parent / "download")


@dataclass(frozen=True)
class Child:
    """The process of one page, shut in: `listener` is on the loopback of its own network, None where it has none."""

    process: Process
    control: socket.socket
    listener: socket.socket | None
    walls: dict[str, bool]

    async def tell(self, job: dict[str, Any]) -> None:
        """Hand over its job; when it has died, reading its answer finds that out."""
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(self.control, json.dumps(job).encode() + b"\n")


@contextlib.asynccontextmanager
async def started(work: Path) -> AsyncIterator[Child]:
    """The child, told nothing yet; dead and buried after the block. What it says besides answers is in work/stderr."""
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours):
        with contextlib.closing(theirs), (work / "stderr").open("wb") as stderr:
            process = await _start(work, theirs, stderr.fileno())
        try:
            walls, listener = await asyncio.to_thread(_receive_walls, ours)
            with listener or contextlib.nullcontext():
                yield Child(process, ours, listener, walls)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
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


async def _start(work: Path, control: socket.socket, stderr: int) -> Process:
    """Start the child with nothing of our environment: no proxies, no `no_proxy`, no folder with programs.

    An absent PATH would mean /bin:/usr/bin, where an ffmpeg may be, so it names a folder that is not there.
    """
    root = str(Path(extractor.__file__).parents[2])
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-B", "-c", _LAUNCH, root),
        stdin=control.fileno(),
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
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


def _receive_walls(control: socket.socket) -> tuple[dict[str, bool], socket.socket | None]:
    """Which walls stand around the child, and the listener inside its network; neither when it died."""
    data, descriptors, _, _ = socket.recv_fds(control, _SLACK_BYTES, 1)
    control.setblocking(False)  # noqa: FBT003 the standard library's signature
    return json.loads(data or b"{}"), socket.socket(fileno=descriptors[0]) if descriptors else None


def _job(url: str, work: Path, proxy: str, settings: Settings) -> dict[str, Any]:
    return {
        "url": url,
        "folder": str(work / "out"),
        "proxy": proxy,
        "user_agent": "",  # video sites serve browsers; yt-dlp knows what to say to each
        "socket_timeout_s": settings.first_byte_timeout_s,
        "timeout_s": settings.video_timeout_s,
        "max_bytes": settings.max_video_bytes,
        "max_duration_s": settings.max_video_duration_s,
    }


async def _wait(child: Process, proxy: FilteringProxy, settings: Settings, progress: Progress | None) -> _Word:
    """Read the child's lines to the last one, while its download keeps the minimum rate."""
    started = asyncio.Event()
    reading = asyncio.ensure_future(_read(child, started, progress))
    watching = asyncio.ensure_future(_watch(proxy, started, settings.min_rate_bytes_per_s))
    try:
        await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        return await reading
    finally:
        for task in (reading, watching):
            task.cancel()
        await asyncio.gather(reading, watching, return_exceptions=True)


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


def _file(folder: Path) -> Path | None:
    """The one finished file; parts, links and empty files are none."""
    found = [p for p in folder.iterdir() if p.is_file() and not p.is_symlink() and p.suffix not in {".part", ".ytdl"}]
    return max(found, key=lambda p: p.stat().st_size, default=None)


def _error(answer: _Word, proxy: FilteringProxy, settings: Settings, stderr: str) -> errors.ScanError:
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
    logger.error("yt-dlp's process died: %s", stderr[-_SLACK_BYTES:])
    return errors.NoMedia("could not take a video from this page; save the picture or video and scan the file")
