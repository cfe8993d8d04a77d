"""How many bytes follow the end of a picture: the mark of a file that is also something else.

In: an open picture file and its format. Out: a count, 0 when nothing follows or the end cannot be told.
One reason: one format decides what a polyglot is; what it carries behind its end is said, not looked at.
"""

import contextlib
import mmap
import re
from typing import BinaryIO

_JPEG_MARKER = re.compile(
    rb"\xff[^\x00\xd0-\xd7\xff]"
)  # a marker in entropy-coded data: no stuffing, restart or fill byte
_JPEG_END, _JPEG_SCAN, _JPEG_EOI = 0xD9, 0xDA, b"\xff\xd9"
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_GIF_TRAILER, _GIF_EXTENSION, _GIF_IMAGE = 0x3B, 0x21, 0x2C


def bytes_after_end(source: BinaryIO, name: str) -> int:
    """Count what follows the picture; formats whose end is their file's end (AVIF, HEIC, BMP) count as 0."""
    find_end = {"jpeg": _jpeg_end, "png": _png_end, "gif": _gif_end, "webp": _webp_end}.get(name)
    if find_end is None:
        return 0
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data, contextlib.suppress(IndexError):
        return max(0, len(data) - find_end(data))
    return 0


def _jpeg_end(data: mmap.mmap) -> int:
    """Walk the segments, and in scans the markers, to End Of Image (ITU T.81 §B.1)."""
    if data.find(_JPEG_EOI) == len(data) - len(_JPEG_EOI):
        return len(data)  # the only one, and last: the common case, without a walk
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return len(data)
        kind, at = data[found.start() + 1], found.end()
        if kind == _JPEG_END:
            return at
        if kind not in _JPEG_BARE:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))


def _png_end(data: mmap.mmap) -> int:
    """Walk the chunks to IEND (PNG §5.3)."""
    at = 8
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            return at
    return len(data)


def _gif_end(data: mmap.mmap) -> int:
    """Walk the blocks to the trailer (GIF89a §15-27)."""
    at = 13 + _gif_colours(data[10])
    while data[at] != _GIF_TRAILER:
        if data[at] == _GIF_IMAGE:
            at += 11 + _gif_colours(data[at + 9])  # its code size is one byte more
        elif data[at] == _GIF_EXTENSION:
            at += 2
        else:
            return len(data)
        while data[at]:
            at += 1 + data[at]
        at += 1
    return at + 1


def _gif_colours(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _webp_end(data: mmap.mmap) -> int:
    """The RIFF header tells the size; chunks are padded to even sizes."""
    size = int.from_bytes(data[4:8], "little")
    return 8 + size + size % 2
