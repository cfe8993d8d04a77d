"""The bytes of a medium as they come, whatever they come from.

In: pieces. Out: their digest, their format, a file; or an error as soon as they are too many or not media.
One reason: limits hold while bytes stream in, packed or not, so nothing is held in memory or on disk past them.
"""

import hashlib
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from scanner import errors
from scanner.formats import HEAD_BYTES, Format, looks_like_html, sniff
from scanner.settings import Settings

Progress = Callable[[int, int | None], None]
"""Hears the bytes so far, and the total or None."""

PIECE_BYTES = 65_536
SAVE = "save the picture or video and scan the file"
_MANIFEST = re.compile(rb"\s*(#EXTM3U|(<\?xml[^>]*>\s*)?<MPD[\s>])")  # HLS, DASH: names of segments; yt-dlp reads them


class IsPage(Exception):
    """The answer is a web page or a manifest: yt-dlp's business."""


class Body:
    """Bytes as they come: counted, sniffed, hashed, written."""

    def __init__(self, settings: Settings, file: BinaryIO | None, progress: Progress | None, total: int | None) -> None:
        self._settings = settings
        self._file = file
        self._progress = progress
        self._total = total
        self._head = b""
        self._sha256 = hashlib.sha256()
        self.format: Format | None = None
        self.size_bytes = 0

    def take(self, piece: bytes) -> None:
        """Take the next bytes; raises TooLarge, UnsupportedMedia, IsPage."""
        self.size_bytes += len(piece)
        if self.format is None:
            self._head += piece[:HEAD_BYTES]
            if len(self._head) >= HEAD_BYTES:
                self._sniff()
        self.refuse_size(self.size_bytes)
        self._sha256.update(piece)
        if self._file is not None:
            self._file.write(piece)
        if self._progress is not None:
            self._progress(self.size_bytes, self._total)

    def finish(self) -> str:
        """The whole is there: its sha256 in hex; raises Empty, UnsupportedMedia, IsPage, TooLarge."""
        if not self.size_bytes:
            msg = f"the source has no bytes; look at it in a browser, then {SAVE}"
            raise errors.Empty(msg)
        if self.format is None:
            self._sniff()
            self.refuse_size(self.size_bytes)
        return self._sha256.hexdigest()

    def refuse_size(self, size_bytes: int) -> None:
        """Raise TooLarge past the limit of the kind, as far as the kind is known."""
        limits = {"image": self._settings.max_image_bytes, "video": self._settings.max_video_bytes}
        limit = limits[self.format.kind] if self.format else max(limits.values())
        if size_bytes > limit:
            what = self.format.name if self.format else "file"
            msg = f"the {what} has more than {limit:,} bytes, the limit; scan a smaller copy or a part of it"
            raise errors.TooLarge(msg)

    def _sniff(self) -> None:
        self.format = sniff(self._head)
        if self.format is None:
            if looks_like_html(self._head) or _MANIFEST.match(self._head):
                raise IsPage
            msg = "neither a picture (JPEG, PNG, WebP, GIF, AVIF, BMP, HEIC) nor a video (mp4, mov, webm, mkv, ts)"
            raise errors.UnsupportedMedia(msg)
        if self._total is not None:
            self.refuse_size(self._total)


def decoder(encoding: str) -> Callable[[bytes], Iterator[bytes]]:
    """We ask for `identity`, some servers gzip nevertheless; small pieces, so that a bomb meets the limit early."""
    if encoding.strip().lower() in {"", "identity"}:
        return lambda piece: iter((piece,))
    if encoding.strip().lower() not in {"gzip", "x-gzip", "deflate"}:
        msg = f"the server sends it packed ({encoding[:50]}) although we asked it not to; {SAVE}"
        raise errors.UnsupportedMedia(msg)
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib, by its header

    def decode(piece: bytes) -> Iterator[bytes]:
        try:
            while piece and not unpacker.eof:
                yield unpacker.decompress(piece, PIECE_BYTES)
                piece = unpacker.unconsumed_tail
        except zlib.error as error:
            msg = f"the server says {encoding} but sends something else; {SAVE}"
            raise errors.SourceFailed(msg) from error

    return decode
