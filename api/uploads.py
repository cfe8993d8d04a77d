"""A multipart body in, a file in the spool named by the SHA-256 of its bytes out; never more than one piece in memory.

One reason: API and workers share the spool and nothing else, so the name must tell a worker that the bytes are whole:
a file gets its name only when it is complete.
"""

import asyncio
import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

from aiohttp import BodyPartReader, web

from api.bodies import refuse_length
from api.errors import BadRequest, Invalid
from scanner.errors import Empty, TooLarge, UnsupportedMedia
from scanner.formats import HEAD_BYTES, sniff
from scanner.settings import Settings

PIECE_BYTES: Final = 1 << 20
FORM_BYTES: Final = 64_000
"""What boundaries and headers of the form may take beside the file."""
LONGEST_NAME: Final = 200


class Uploaded(NamedTuple):
    """A whole file in the spool, and what its sender calls it."""

    sha256: str
    name: str
    path: Path


async def receive(request: web.Request, folder: Path, settings: Settings) -> Uploaded:
    """Stream the form's one `file` into the spool.

    Raises BodyTooLarge, BadRequest or Invalid for the form, Empty, TooLarge or UnsupportedMedia for the file.
    """
    refuse_length(request, settings.max_video_bytes + FORM_BYTES)
    try:
        form = await request.multipart()
        part = await form.next()
        if not isinstance(part, BodyPartReader) or part.name != "file":
            msg = "the form must have one part, named `file`"
            raise Invalid(msg)
        received = await _spool(part, folder, settings)
        if await form.next() is not None:
            msg = "the form must have one part, named `file`, and nothing after it"
            raise Invalid(msg)
    except (ValueError, AssertionError, KeyError) as error:  # how aiohttp says that a form is malformed
        msg = f"this is no multipart form: {error}"
        raise BadRequest(msg) from error
    return received


async def _spool(part: BodyPartReader, folder: Path, settings: Settings) -> Uploaded:
    digest, size, head = hashlib.sha256(), 0, b""
    limit = settings.max_video_bytes
    handle, name = await asyncio.to_thread(_open, folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            while piece := await part.read_chunk(PIECE_BYTES):
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
