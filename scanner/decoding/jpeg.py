"""A plain JPEG's bytes into one sRGB frame, by the shortest way; runs in the jail, and only there.

In: an open JPEG file. Out: a `Sheet`, and the pixels in the payload; or an empty answer, which leaves the file to
`picture`: one that is not plain (turned, XMP, colour profile, grey, CMYK), too large, or in any way damaged.
One reason: most pictures of the web are plain JPEGs, and a fork server with libjpeg alone has half as much to copy for
each job. Measured for one megapixel: 12 core-ms, where with Pillow it takes 19.

Transform and upsampling are those that Pillow asks of the same library (libjpeg-turbo), so the pixels are the same too.
"""

import contextlib
import mmap
import os
from typing import Any, BinaryIO, Literal

import msgspec
import numpy as np
import simplejpeg

from scanner.decoding.frames import CHANNELS, FrameWriter, Sheet, Wanted, shrunk_size, to_answer
from scanner.fetching.tail import bytes_after_end

_NOT_PLAIN: dict[str, Any] = {}
_SCAN = 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_PLAIN = _FRAMES | {0xC4, 0xDB, 0xDD, 0xE0, 0xED, 0xEE, 0xFE}  # tables, restarts, JFIF, Photoshop, Adobe, comments
_EXIF, _EXIF_MARK = 0xE1, b"Exif\0\0"
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}  # TIFF 6.0 §2
_ORIENTATION, _SHORT, _ENTRY_BYTES = 0x0112, 3, 12
_COLOUR = b"\x08", b"\x03"  # bits and components, ITU T.81 §B.2.2
_HUGE_PAGE_BYTES = 2 * 1024 * 1024


def prepare() -> None:
    """Decode once: children inherit what is linked, and bytecode that is specialised."""
    dot = simplejpeg.encode_jpeg(np.zeros((16, 16, CHANNELS), np.uint8), colorsubsampling="420")
    wanted = Wanted(
        format="jpeg",
        max_frames=1,
        max_pixels=256,
        max_decoded_bytes=768,
        max_duration_s=0,
        max_streams=0,
        budget_s=0,
    )
    source, payload = (os.fdopen(os.memfd_create("laescan-dot"), "r+b", buffering=0) for _ in range(2))
    with source, payload:
        source.write(dot)
        decode(source, payload, msgspec.to_builtins(wanted))


def decode(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Decode a plain JPEG; empty when it is none. Raises nothing: what is wrong with a file, Pillow's half tells."""
    wanted = msgspec.convert(options, Wanted)
    with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            if not _is_plain(data):
                return _NOT_PLAIN
            height, width = (int(side) for side in simplejpeg.decode_jpeg_header(data)[:2])
            size = (width, height)
            if width * height > wanted.max_pixels or shrunk_size(width, height, wanted, frames=1) != size:
                return _NOT_PLAIN
            pixels = _buffer(CHANNELS * width * height)
            simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)  # strict: a mere warning of libjpeg raises
        except (ValueError, IndexError):
            return _NOT_PLAIN
    writer = FrameWriter(payload)
    writer.write_strips([pixels], size, 0, None)
    extra = bytes_after_end(source, wanted.format)
    notes = (f"{extra:,} bytes follow the end of the picture; they were not looked at",) if extra else ()
    return to_answer(
        Sheet(kind="image", width=width, height=height, frame_count=1, frames=writer.in_order(), warnings=notes)
    )


def _is_plain(data: mmap.mmap) -> bool:
    """Walk the segments to the first scan: 8-bit colour, and nothing that turns or tints it."""
    at, is_colour, has_exif = 2, False, False
    while data[at] == 0xFF:
        kind = data[at + 1]
        if kind == _SCAN:
            return is_colour
        if kind == _EXIF and not has_exif:  # a second one might take the first one back
            has_exif = True
            if not _is_upright(data[at + 4 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]):
                return False
        elif kind not in _PLAIN:
            return False
        if kind in _FRAMES:
            is_colour = (data[at + 4 : at + 5], data[at + 9 : at + 10]) == _COLOUR
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _is_upright(segment: bytes) -> bool:
    """Whether it is EXIF that is whole as far as its first directory, and does not turn the picture (EXIF 2.32 §4.6.4).

    What is odd in any way is not: Pillow has its own opinion of it.
    """
    tiff = segment.removeprefix(_EXIF_MARK)
    order = _ORDERS.get(tiff[:4])
    if order is None or len(tiff) == len(segment):
        return False

    def number(at: int, size: int) -> int:
        if at + size > len(tiff):
            raise IndexError
        return int.from_bytes(tiff[at : at + size], order)

    directory = number(4, 4)
    places = range(directory + 2, directory + 2 + _ENTRY_BYTES * number(directory, 2), _ENTRY_BYTES)
    number(places.stop, 4)  # the next directory's place: this one is whole
    turns = [at for at in places if number(at, 2) == _ORIENTATION]
    values = [(number(at + 2, 2), number(at + 4, 4), number(at + 8, 2)) for at in turns]
    return values in ([], [(_SHORT, 1, 1)])


def _buffer(size_bytes: int) -> memoryview:
    """Memory in huge pages where the kernel has them: 2 page faults for a megapixel instead of 768."""
    whole = -(-size_bytes // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES  # only a mapping of whole ones is laid on them
    region = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without them
        region.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(region)[:size_bytes]
