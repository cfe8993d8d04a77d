"""A multipart body in, a file in the spool named by the SHA-256 of its bytes out; never more than one piece in memory.

One reason: API and workers share the spool and nothing else, so the name must tell a worker that the bytes are whole:
a file gets its name only when it is complete.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from api.bodies import BODY_S, in_time, refuse_length
from api.errors import BadRequest, BodyTooSlow, Invalid, Unavailable
from scanner.errors import Empty, TimedOut, TooLarge, UnsupportedMedia
from scanner.fetching.pace import Pace
from scanner.folders import is_full
from scanner.formats import HEAD_BYTES, sniff
from scanner.settings import Settings

log = logging.getLogger(__name__)

PIECE_BYTES: Final = 1 << 20
FORM_BYTES: Final = 64_000
"""What boundaries and headers of the form may take beside the file."""
LONGEST_NAME: Final = 200
UPLOAD_S: Final = 1_800.0
"""For a whole file: 500 MB at 2.2 Mbit/s."""
FULL_S: Final = 60.0
"""What Retry-After advises when the disk is full: uploads of ended scans are swept."""


class Uploaded(NamedTuple):
    """A whole file in the spool, and what its sender calls it."""

    sha256: str
    name: str
    path: Path


async def receive(request: web.Request, folder: Path, settings: Settings) -> Uploaded:
    """Stream the form's one `file` into the spool.

    Raises BodyTooLarge, BodyTooSlow, BadRequest or Invalid for the form, Empty, TooLarge or UnsupportedMedia for the
    file, Unavailable when there is no room for it.
    """
    refuse_length(request, settings.max_video_bytes + FORM_BYTES)
    try:
        async with in_time(UPLOAD_S):
            return await _receive(request, folder, settings)
    except (ValueError, AssertionError, KeyError, HttpProcessingError) as error:  # aiohttp's words for a malformed form
        msg = f"this is no multipart form: {error}"
        raise BadRequest(msg) from error
    except OSError as error:
        if not is_full(error):
            raise
        log.error("an upload was refused: the disk of %s is full", folder)  # noqa: TRY400 - that is all there is to say
        msg = "the service has no room for uploads now; ask again, or tell whoever runs it that its disk is full"
        raise Unavailable(msg, retry_after_s=FULL_S) from error


async def _receive(request: web.Request, folder: Path, settings: Settings) -> Uploaded:
    async with in_time(BODY_S):
        form = await request.multipart()
        part = await form.next()
    if not isinstance(part, BodyPartReader) or part.name != "file":
        msg = "the form must have one part, named `file`"
        raise Invalid(msg)
    received = await _spool(part, folder, settings)
    async with in_time(BODY_S):
        if await form.next() is not None:
            msg = "the form must have one part, named `file`, and nothing after it"
            raise Invalid(msg)
    return received


async def _spool(part: BodyPartReader, folder: Path, settings: Settings) -> Uploaded:
    digest, size, head = hashlib.sha256(), 0, b""
    limit, pace = settings.max_video_bytes, Pace(settings.min_rate_bytes_per_s)
    handle, name = await asyncio.to_thread(_open, folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            while piece := await _next(part, pace):
                if len(head) < HEAD_BYTES:
                    head += piece[: HEAD_BYTES - len(head)]
                    limit = _limit(head, settings) if len(head) >= HEAD_BYTES else limit
                size += len(piece)
                if size > limit:
                    msg = f"the file has more than {limit} bytes, the most that is taken"
                    raise TooLarge(msg)
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        if not size:
            msg = "the file has no bytes"
            raise Empty(msg)
        if size > _limit(head, settings):
            msg = f"a picture may have {settings.max_image_bytes} bytes at most"
            raise TooLarge(msg)
        target = folder / digest.hexdigest()
        await asyncio.to_thread(path.replace, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(path.unlink)
    return Uploaded(digest.hexdigest(), _legible(part.filename), target)


async def _next(part: BodyPartReader, pace: Pace) -> bytes:
    """The next piece; raises BodyTooSlow when hardly anything comes."""
    reading = asyncio.ensure_future(part.read_chunk(PIECE_BYTES))
    try:
        return await pace.read(lambda: asyncio.shield(reading))  # cut off in the middle it would lose what it has
    except TimedOut as error:
        msg = "the file comes too slowly; send it again over a better connection"
        raise BodyTooSlow(msg) from error
    finally:
        reading.cancel()


def _open(folder: Path) -> tuple[int, str]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return tempfile.mkstemp(dir=folder, prefix="partial-")


def _limit(head: bytes, settings: Settings) -> int:
    """How large a file of this format may be; raises UnsupportedMedia."""
    found = sniff(head)
    if found is None:
        msg = "this is none of the formats we judge: JPEG PNG WebP GIF AVIF BMP HEIC, mp4/mov, matroska/webm, mpegts"
        raise UnsupportedMedia(msg)
    return settings.max_image_bytes if found.kind == "image" else settings.max_video_bytes


def _legible(name: str | None) -> str:
    """A name to show: the last part of a path, without what a terminal or a log could take for more than text."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in last if letter.isprintable())[:LONGEST_NAME] or "upload"
