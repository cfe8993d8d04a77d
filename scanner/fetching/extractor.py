"""The child process that runs yt-dlp: the page of a video in, one video file out.

In: a job, one line of JSON on the socket that is file descriptor 0. Out: lines of JSON on standard output; the last
names an error or says that the file is there. `page` starts it with no environment and may kill it any time.
One reason: yt-dlp goes where pages send it, so it gets no route but our proxy: a network namespace of its own
whose one listener is handed to the parent, sees Python's libraries and its own folder, and can start no other program.
It imports nothing else of the scanner but the walls.
"""

import contextlib
import fcntl
import importlib
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from scanner.walls import kernel
from scanner.walls.seccomp import page_filter

CONTROL_FD = 0
JOB_BYTES = 1_000_000

# Video only first (a verdict needs no sound, so nothing to merge, so no ffmpeg); avc1 because H.264 is the cheapest on
# a CPU and H100 cannot decode AV1; 480 lines because a face of 40 px is there and decoding 1080p costs 5x.
FORMAT = (
    "bv[height<=480][vcodec^=avc1]/bv*[height<=480][vcodec^=avc1]"
    "/bv[height<=480]/bv*[height<=480]/wv[vcodec^=avc1]/wv*[vcodec^=avc1]/wv*"
)

_SPACES = kernel.NEWUSER | kernel.NEWNET | kernel.NEWNS | kernel.NEWPID | kernel.NEWIPC | kernel.NEWUTS
# What yt-dlp or Python load late and what needs a library of the system's: later there is none to be found.
_LOADED_EARLY = (
    "yt_dlp",
    "bz2",
    "ctypes",
    "hashlib",
    "lzma",
    "multiprocessing",
    "sqlite3",
    "ssl",
    "uuid",
    "zlib",
    "zoneinfo",
)
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
# yt-dlp unpacks gzip in one piece; a bomb (2.5 MB to 2.6 GB tried) meets this wall. A common page needs 0.1 GB.
_ADDRESS_SPACE_BYTES = 1_000_000_000
_MOST_PROCESSES = 64

_LIVE = ("is_live", "is_upcoming", "post_live")
_WORDS: tuple[tuple[str, str, str], ...] = (
    (r"live event|live stream|livestream|not currently live|will begin in|premieres? ", "live_stream", "it is live"),
    (r"\blog.?in\b|\bsign.?in\b|logged.in|account|cookies|private|members.only|password|age.restricted|paid|subscri",
     "forbidden", "it asks for a login or a permission"),
    (r"available in your (country|region|location)|geo.?restrict|from your location",
     "forbidden", "it is not shown in this country"),
    (r"removed|deleted|does not exist|no longer available|video unavailable|not found", "gone", "it is not there"),
    (r"file too large|max-filesize", "too_large", "it is larger than the limit"),
    (r"timed? ?out", "timed_out", "the site is too slow"),
    (r"drm", "no_media", "it is protected against copying"),
)  # fmt: skip
_ADVICE = "save the picture or video and scan the file"

Options = dict[str, Any]


def options(job: Options, refuse: Callable[..., str | None], report: Callable[[Options], None], log: object) -> Options:
    """Every option that yt-dlp gets; frozen by a test, because half of its advisories are about one of them."""
    return {
        "proxy": job["proxy"],
        "enable_file_urls": False,
        "http_headers": {"User-Agent": job["user_agent"]} if job["user_agent"] else {},
        "socket_timeout": job["socket_timeout_s"],
        "retries": 2,
        "fragment_retries": 2,
        "file_access_retries": 0,
        "extractor_retries": 1,
        "skip_unavailable_fragments": False,
        # one file, one stream, no other program
        "format": FORMAT,
        "external_downloader": {"default": "native"},
        "hls_prefer_native": True,
        "concurrent_fragment_downloads": 1,
        "fixup": "never",
        "postprocessors": [],
        "ffmpeg_location": "/nonexistent",
        "js_runtimes": {},
        "remote_components": [],
        # one item
        "noplaylist": True,
        "playlist_items": "1",
        "lazy_playlist": True,
        "match_filter": refuse,
        "max_filesize": job["max_bytes"],
        # the file, and nothing beside it
        "outtmpl": {"default": str(Path(job["folder"]) / "video.%(ext)s")},
        "overwrites": True,
        "continuedl": False,
        "updatetime": False,
        "cachedir": False,
        "writethumbnail": False,
        "writesubtitles": False,
        "writeautomaticsub": False,
        "writeinfojson": False,
        "writedescription": False,
        "writelink": False,
        # no secrets, nothing remembered
        "cookiefile": None,
        "cookiesfrombrowser": None,
        "usenetrc": False,
        "netrc_cmd": None,
        "nocheckcertificate": False,
        "allow_unplayable_formats": False,
        "progress_hooks": [report],
        "logger": log,
        "quiet": True,
        "no_warnings": True,
        "noprogress": True,
        "color": "no_color",
    }


class Refused(Exception):
    """The video may not be taken; carries a code of `scanner.errors`."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class _Log:
    """What yt-dlp says, kept to explain a file that never came."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, line: str) -> None:
        self.lines = [*self.lines[-50:], line[:500]]

    info = warning = error = debug


def main() -> None:
    """Isolate, say so, take a job, answer."""
    sys.excepthook = _without_words
    control = socket.socket(fileno=CONTROL_FD)
    handle, listener, walls = shut_in()
    socket.send_fds(control, [json.dumps(walls).encode()], [handle, *([listener.fileno()] if listener else [])])
    os.close(handle)
    with control.makefile("rb") as lines:
        job = json.loads(lines.readline(JOB_BYTES))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever prints on standard output is not an answer
    _limit(job)
    answer = probe(job) if "canary" in job else take(job, lambda step: print(json.dumps(step), file=answers))
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _without_words(kind: type[BaseException], _error: BaseException, trace: TracebackType | None) -> None:
    """Say where something unforeseen happened, not in which words: they may quote a URL, and our log is read."""
    sys.stderr.write(f"{''.join(traceback.format_tb(trace))}{kind.__name__}\n")


def take(job: Options, tell: Callable[[Options], object]) -> Options:
    """Let yt-dlp fetch the page's video into job["folder"]; answers {"done": ...} or {"error": ..., "message": ...}."""
    import yt_dlp  # noqa: PLC0415 - the parent imports this module, too, and has no use for it

    def report(step: Options) -> None:
        if step.get("status") == "downloading":
            tell({"bytes": step.get("downloaded_bytes") or 0, "total": step.get("total_bytes")})

    def refuse(info: Options, *, incomplete: bool = False) -> None:
        refuse_video(info, job)
        if not incomplete:
            tell({"started": True})

    log = _Log()
    try:
        with yt_dlp.YoutubeDL(options(job, refuse, report, log)) as downloader:
            downloader.extract_info(job["url"], download=True)
    except Refused as refusal:
        return {"error": refusal.code, "message": str(refusal)}
    except yt_dlp.utils.YoutubeDLError as error:
        code, why = explain(error)
        return {"error": code, "message": why}
    except MemoryError:
        return {"error": "too_large", "message": f"the page unpacks to more than we can hold; {_ADVICE}"}
    if any(Path(job["folder"]).iterdir()):
        return {"done": True}
    code, why = explain_words(" ".join(log.lines))
    return {"error": code, "message": why}


def refuse_video(info: Options, job: Options) -> None:
    """Raise Refused for a live or an over-long video, as soon as the page tells (a file alone may tell neither)."""
    if info.get("is_live") or info.get("live_status") in _LIVE:
        code, words = "live_stream", f"a live stream has no end to wait for; when it is over, {_ADVICE}"
        raise Refused(code, words)
    if (info.get("duration") or 0) > job["max_duration_s"]:
        minutes = job["max_duration_s"] / 60
        code, words = "too_long", f"the video is longer than {minutes:g} minutes; cut out the part in question"
        raise Refused(code, words)


def explain(error: BaseException) -> tuple[str, str]:
    """Put yt-dlp's exception into a code and words of ours."""
    found = (getattr(cause, "status", None) for cause in _causes(error))
    statuses = [status for status in found if isinstance(status, int)]
    if statuses:
        codes = {401: "forbidden", 403: "forbidden", 407: "forbidden", 451: "forbidden", 404: "gone", 410: "gone"}
        code = "rate_limited" if statuses[0] == 429 else codes.get(statuses[0], "source_failed")
        return code, f"the site answered {statuses[0]} when asked for the video; {_ADVICE}"
    kinds = {type(cause).__name__ for cause in _causes(error)}
    if "GeoRestrictedError" in kinds:
        return "forbidden", f"the video is not shown in this country; {_ADVICE}"
    if "UserNotLive" in kinds:
        return "live_stream", "the channel has no recording to take"
    if "UnsupportedError" in kinds:
        return (
            "no_media",
            f"found no video on this page (it may ask for a login, or need a browser); {_ADVICE}",
        )
    if kinds & {"TransportError", "ProxyError", "SSLError"} and not kinds & {"IncompleteRead"}:
        slow = any("timed out" in str(cause).lower() for cause in _causes(error))
        return ("timed_out", "the site is too slow") if slow else ("unreachable", "the connection to the video was cut")
    return explain_words(str(error))


def explain_words(text: str) -> tuple[str, str]:
    """Put yt-dlp's words into a code and words of ours; what nobody knows is a page without a video for us."""
    for pattern, code, why in _WORDS:
        if re.search(pattern, text, re.IGNORECASE):
            return code, f"could not take the video of this page: {why}; {_ADVICE}"
    return "no_media", f"could not take a video from this page; {_ADVICE}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and those behind it: yt-dlp keeps them in three places."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        cause = todo.pop(0)
        if not isinstance(cause, BaseException) or id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        info = getattr(cause, "exc_info", None)
        todo += [info[1] if isinstance(info, tuple) else None, getattr(cause, "cause", None), cause.__cause__]


def shut_in() -> tuple[int, socket.socket | None, dict[str, bool]]:
    """Give up what a page must not get at, for good; out: a handle of us, our listener, which walls stand around us.

    We are the first process of our namespace, so whoever has the handle can kill all that is in it.
    A socket stays in the namespace that made it, so the parent can accept there and dial out from its own.
    No listener: the kernel forbids namespaces.
    """
    listener = _leave_network()
    handle = os.pidfd_open(os.getpid())
    for name in _LOADED_EARLY:
        importlib.import_module(name)
    walls = {"network": listener is not None, "files": listener is not None and _leave_files()}
    kernel.renounce()
    kernel.die_with_parent()  # last: a new user namespace undoes it
    code = page_filter()
    if code is not None:
        kernel.filter_calls(code)
    return handle, listener, {**walls, "filter": code is not None}


def _leave_network() -> socket.socket | None:
    """Enter empty namespaces and listen on the loopback that is in there; None where the kernel forbids it."""
    try:
        kernel.unshare(_SPACES)
    except OSError:
        return None
    kernel.die_with_parent()
    kernel.become_first()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
    return socket.create_server(("127.0.0.1", 0))


def _leave_files() -> bool:
    """Keep Python's libraries, to read, and the folder that we were started in; False where mounting is forbidden."""
    work = str(Path.cwd())
    homes = {sys.prefix, sys.base_prefix, str(Path(importlib.import_module("yt_dlp").__file__ or "/").parents[1])}
    libraries = [path for path in sys.path if Path(path).is_dir() and any(_is_in(path, home) for home in homes)]
    try:
        kernel.new_root(os.fsencode(work), readable=[*libraries, str(Path(__file__).parents[1])], writable=[work])
    except OSError:
        return False
    os.chdir(work)
    return True


def _is_in(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def probe(job: Options) -> Options:
    """Try what a page could make a broken-into yt-dlp try; the self-test behind `laescan doctor`.

    In: `canary`, the port of a listener on the parent's loopback, and `path`, a file that is not ours. Out: what held.
    """
    return {
        "network": _held(lambda: socket.create_connection(("127.0.0.1", job["canary"]), timeout=1).close()),
        "files": _held(lambda: Path(job["path"]).read_bytes()),
        "programs": _held(lambda: os.execv("/bin/true", ["true"])),  # noqa: S606 - that it fails is what is wanted
    }


def _held(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _limit(job: Options) -> None:
    """Walls against what a page can make yt-dlp do: memory, file size, CPU; no core files."""
    walls = {
        resource.RLIMIT_AS: _ADDRESS_SPACE_BYTES,
        resource.RLIMIT_FSIZE: job["max_bytes"] + 1,
        resource.RLIMIT_CPU: int(job["timeout_s"]) + 1,
        resource.RLIMIT_NPROC: _MOST_PROCESSES,
        resource.RLIMIT_CORE: 0,
    }
    for wall, value in walls.items():
        with contextlib.suppress(ValueError):  # already lower
            resource.setrlimit(wall, (value, value))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


if __name__ == "__main__":
    main()
