"""A source as the user gives it → bytes on disk that look like a picture or a video.

In: an http(s) URL, a path, or "-" for standard input. Out: `Fetched`, or an error that says what to do.
One reason: every limit on what comes from outside (addresses, redirects, bytes, seconds, formats) is enforced here,
while it streams. A web page goes to `page`, a file is read where it lies, after an error `folder` is as before.
"""

import asyncio
import contextlib
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import aiohttp
from yarl import URL

from scanner import errors
from scanner.cache.validators import NO_VALIDATORS, NotModified, Validators
from scanner.fetching.body import PIECE_BYTES, SAVE, Body, IsPage, Progress, decoder
from scanner.fetching.egress import refused_by_proxy
from scanner.fetching.pace import Pace
from scanner.fetching.page import fetch_page
from scanner.fetching.proxy import OWN_ANSWER
from scanner.fetching.web import Web, new_session
from scanner.settings import Settings

STDIN = "-"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_URL_SCHEMES = frozenset({"data", "blob", "file", "javascript", "about", "ftp", "ftps", "gopher", "mailto"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NOAI = frozenset({"noai", "noimageai"})


@dataclass(frozen=True)
class Fetched:
    """A medium on disk: `path` is in the job's folder, or the user's own file for via="file"."""

    path: Path
    source: str
    url: str | None  # after redirects; None for a file
    sha256: str
    size_bytes: int
    via: Literal["http", "page", "file", "stdin"]
    validators: Validators = NO_VALIDATORS  # of the bytes that lay behind `url`


async def fetch(
    source: str,
    *,
    folder: Path,
    settings: Settings,
    progress: Progress | None = None,
    known: Validators = NO_VALIDATORS,
    web: Web | None = None,
) -> Fetched:
    """Get the bytes of `source`; `progress` hears (bytes so far, total or None), `web` is shared with other fetches.

    Raises a FetchError leaf, Empty, UnsupportedMedia or TooLong; NotModified when the server says that what is `known`
    still stands. `folder` is then as it was.
    """
    if source == STDIN:
        return await _fetch_stdin(folder, settings, progress)
    scheme = _SCHEME.match(source.strip())
    if scheme and scheme[1].lower() in {"http", "https"}:
        return await _fetch_url(source.strip(), folder, settings, progress, _Asking(known, web))
    if scheme and ("://" in source or scheme[1].lower() in _URL_SCHEMES):
        msg = f"{scheme[1].lower()}: is not an address that we fetch from; give an http or https URL, or {SAVE}"
        raise errors.BadSource(msg)
    return await asyncio.to_thread(_read_file, Path(source), source, settings)


# ---------------------------------------------------------------- files and standard input


def _read_file(path: Path, source: str, settings: Settings) -> Fetched:
    """Judge and hash a file where it lies; a FIFO or a device is refused before a byte is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        msg = f"no such file: {source}"
        raise errors.Gone(msg) from None
    except PermissionError:
        msg = f"no permission to read {source}"
        raise errors.Forbidden(msg) from None
    except (OSError, ValueError) as error:  # a name too long, a NUL in it, a socket
        msg = f"cannot open {source[:200]!r}: {error}"
        raise errors.BadSource(msg) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        msg = f"{source} is {what}; give a picture or a video file"
        raise errors.BadSource(msg)
    with os.fdopen(descriptor, "rb") as file:
        body = Body(settings, None, None, status.st_size)
        try:
            while piece := file.read(PIECE_BYTES):
                body.take(piece)
            digest = body.finish()
        except IsPage:
            msg = f"{source} is a web page or a playlist, not a picture or a video; open it and {SAVE}"
            raise errors.UnsupportedMedia(msg) from None
    return Fetched(path, source, None, digest, body.size_bytes, "file")


async def _fetch_stdin(folder: Path, settings: Settings, progress: Progress | None) -> Fetched:
    path = folder / "stdin"
    with _removed_on_error(path), path.open("wb") as file:
        body = Body(settings, file, progress, None)
        try:
            async for piece in _read_descriptor(sys.stdin.fileno()):
                body.take(piece)
            digest = body.finish()
        except IsPage:
            msg = "standard input is a web page or a playlist, not a picture or a video"
            raise errors.UnsupportedMedia(msg) from None
    return Fetched(path, STDIN, None, digest, body.size_bytes, "stdin")


async def _read_descriptor(descriptor: int) -> AsyncIterator[bytes]:
    """Read without a thread that could not be cancelled: wait for the descriptor where it can be waited for."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(descriptor, ready.set)
    except PermissionError:  # a regular file is always ready, and epoll refuses it
        ready = asyncio.Event()
        while piece := os.read(descriptor, PIECE_BYTES):
            yield piece
        return
    try:
        while True:
            await ready.wait()
            ready.clear()
            piece = os.read(descriptor, PIECE_BYTES)
            if not piece:
                return
            yield piece
    finally:
        loop.remove_reader(descriptor)


# ---------------------------------------------------------------- http


def parse_url(text: str, settings: Settings) -> URL:
    """Read a URL that we may fetch, without its credentials; raises BadSource."""
    if len(text.encode("utf-8", "surrogatepass")) > settings.max_url_bytes:
        msg = f"the URL is longer than {settings.max_url_bytes:,} bytes"
        raise errors.BadSource(msg)
    try:
        url = URL(text)
        is_whole = url.scheme in {"http", "https"} and bool(url.host) and bool(url.port)  # each may raise
    except ValueError:  # whose words may quote a part of the URL, a password among them
        is_whole = False
    if not is_whole or re.search(r"[\x00-\x20\x7f]", text):
        msg = f"not an http or https URL; check it, or {SAVE}"
        raise errors.BadSource(msg)
    if "youtubedl" in url.fragment:  # yt-dlp's own way to pass options along (CVE-2023-46121)
        url = url.with_fragment(None)
    return url.with_user(None)


@dataclass(frozen=True)
class _Asking:
    """How a URL is asked for: with what is known of it, and with a client that others use, too."""

    known: Validators
    web: Web | None

    @contextlib.asynccontextmanager
    async def session(self, settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
        if self.web is not None:
            yield self.web.session
            return
        async with new_session(settings) as session:
            yield session

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[None]:
        """Room for a page, which costs much more than a picture."""
        async with self.web.pages if self.web is not None else contextlib.nullcontext():
            yield


async def _fetch_url(
    source: str, folder: Path, settings: Settings, progress: Progress | None, asking: _Asking
) -> Fetched:
    url = parse_url(source, settings)
    path = folder / "download"
    with _removed_on_error(path):
        try:
            return await _download(url, source, path, settings, progress, asking)
        except IsPage:
            async with asking.page():
                await fetch_page(str(url), folder=folder, settings=settings, progress=progress)
        try:
            taken = await asyncio.to_thread(_read_file, path, source, settings)
        except errors.UnsupportedMedia:
            msg = f"what the page plays is not a video that we read; {SAVE}"
            raise errors.NoMedia(msg) from None
    return Fetched(path, source, str(url), taken.sha256, taken.size_bytes, "page")


async def _download(
    url: URL, source: str, path: Path, settings: Settings, progress: Progress | None, asking: _Asking
) -> Fetched:
    """GET with redirects by hand, each hop through the checked connector, the whole within the time of its kind."""
    started = asyncio.get_running_loop().time()
    try:
        async with (
            asyncio.timeout(settings.image_timeout_s) as deadline,
            asking.session(settings) as session,
            _follow(session, url, settings, asking.known) as response,
        ):
            with path.open("wb") as file:
                body = Body(settings, file, progress, response.content_length)
                async for piece in _pieces(response, settings):
                    body.take(piece)
                    if body.format is not None and body.format.kind == "video":
                        deadline.reschedule(started + settings.video_timeout_s)
                digest = body.finish()
            found = Validators.of(response.headers)
            return Fetched(path, source, str(response.url), digest, body.size_bytes, "http", found)
    except TimeoutError:
        msg = f"no complete answer in time; try again later, or {SAVE}"
        raise errors.TimedOut(msg) from None
    except aiohttp.InvalidURL:
        msg = f"not a URL that we can ask for; write the host in the common way, or {SAVE}"
        raise errors.BadSource(msg) from None
    except aiohttp.ClientHttpProxyError as error:
        raise refused_by_proxy(error.status) from None
    except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError) as error:
        msg = f"the server's answer is not HTTP that we understand; open it in a browser, then {SAVE}"
        raise errors.SourceFailed(msg) from error
    except aiohttp.ClientError as error:
        msg = f"could not get it from {url.host}: {_why(error)}; check the URL, try again later, or {SAVE}"
        raise errors.Unreachable(msg) from error


def _why(error: aiohttp.ClientError) -> str:
    """Words for a connection that failed; never aiohttp's own, which may quote what the server sent."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "no such host"
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not valid"
        case aiohttp.ClientSSLError():
            return "it speaks no TLS that we accept"
        case aiohttp.ClientConnectorError():
            return error.os_error.strerror or "no connection"
        case _:
            return "the connection was cut"


@contextlib.asynccontextmanager
async def _follow(
    session: aiohttp.ClientSession, url: URL, settings: Settings, known: Validators
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The first answer that is no redirect, if it is a good one; nothing but the URL goes from hop to hop."""
    for _ in range(settings.max_redirects + 1):
        async with asyncio.timeout(settings.connect_timeout_s + settings.first_byte_timeout_s):
            response = await session.get(url, allow_redirects=False, headers=known.headers())
        async with response:
            if settings.egress_proxy and OWN_ANSWER in response.headers:
                raise refused_by_proxy(response.status)
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                if response.status == 304 and known.headers():
                    raise NotModified
                _refuse_status(response)
                if settings.respect_noai:
                    refuse_noai(response.headers.getall("X-Robots-Tag", []))
                yield response
                return
            try:
                url = parse_url(str(url.join(URL(response.headers["Location"]))), settings)
            except (ValueError, errors.BadSource) as error:
                msg = f"the server redirects to something that is not an http or https URL; {SAVE}"
                raise errors.SourceFailed(msg) from error
            response.close()
    msg = f"more than {settings.max_redirects} redirects; open it in a browser, then {SAVE}"
    raise errors.TooManyRedirects(msg)


def _refuse_status(response: aiohttp.ClientResponse) -> None:
    """An error page is never a picture, whatever its body."""
    status = response.status
    known = {one.value: f" {one.phrase}" for one in HTTPStatus}  # not the server's words: they may quote what was asked
    answered = f"the server answered {status}{known.get(status, '')}"
    if status in {404, 410}:
        msg = f"{answered}: it is not there (any more)"
        raise errors.Gone(msg)
    if status in {401, 403, 407, 451}:
        msg = f"{answered}: it asks for a login or a permission; {SAVE}"
        raise errors.Forbidden(msg)
    if status == 429:
        retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
        msg = f"{answered}: too many requests; try again later"
        raise errors.RateLimited(msg, retry_after_s=retry_after_s)
    if status == 503 and "Retry-After" in response.headers:
        retry_after_s = parse_retry_after(response.headers["Retry-After"])
        msg = f"{answered} and asks to come back later"
        raise errors.RateLimited(msg, retry_after_s=retry_after_s)
    if not 200 <= status < 300 or status == 206:  # 206 is a part that nobody asked for
        msg = f"{answered}; try again later, or {SAVE}"
        raise errors.SourceFailed(msg)


def refuse_noai(tags: Iterable[str]) -> None:
    """Raise OptedOut when a server's X-Robots-Tag headers, meant for all robots or for us, forbid use by AI."""
    for tag in tags:
        agent, colon, rules = tag.lower().partition(":")
        if colon and agent.strip() not in {"laescan", "*"}:
            continue
        if _NOAI & {rule.strip() for rule in (rules if colon else agent).split(",")}:
            msg = "its server asks that no AI uses it (X-Robots-Tag), and you asked to respect that"
            raise errors.OptedOut(msg)


def parse_retry_after(text: str | None) -> float | None:
    """Read seconds or an HTTP date (RFC 9110 §10.2.3) as seconds from now, at least 0; None when it is neither."""
    if text is None:
        return None
    if (number := text.strip()).isascii() and number.isdigit():
        return float(number[:12])
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a year or a zone of twenty digits
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


async def _pieces(response: aiohttp.ClientResponse, settings: Settings) -> AsyncIterator[bytes]:
    """The decoded body, never more than a piece at a time in memory; raises TimedOut, TooLarge, UnsupportedMedia."""
    decode = decoder(response.headers.get("Content-Encoding", "identity"))
    pace = Pace(settings.min_rate_bytes_per_s)
    wire_bytes, limit = 0, max(settings.max_image_bytes, settings.max_video_bytes)
    async with asyncio.timeout(settings.first_byte_timeout_s):
        piece = await response.content.readany()
    while piece:
        wire_bytes += len(piece)
        if wire_bytes > limit:  # a decoder may swallow bytes without end and give none
            msg = f"more than {limit:,} bytes came, the limit; scan a smaller copy"
            raise errors.TooLarge(msg)
        for decoded in decode(piece):
            yield decoded
        piece = await pace.read(response.content.readany)


@contextlib.contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    """Leave nothing behind when the way is cut, by an error or by a cancellation."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
