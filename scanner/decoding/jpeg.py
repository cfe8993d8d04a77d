"""A plain JPEG's bytes into one sRGB frame, by the shortest way; runs in the jail, and only there.

In: an open JPEG file. Out: a `Sheet`, and the pixels in the payload; or an empty answer, which leaves the file to
`picture`: one that is not plain (XMP, colour profile, grey, CMYK), too large, or in any way damaged.
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
import numpy.typing as npt
import simplejpeg

from scanner.decoding.frames import CHANNELS, MOST_SIDE_PX, FrameWriter, Sheet, Wanted, shrunk_size, to_answer
from scanner.fetching.tail import bytes_after_end

_NOT_PLAIN: dict[str, Any] = {}
_SCAN = 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_PLAIN = _FRAMES | {0xC4, 0xDB, 0xDD, 0xE0, 0xED, 0xEE, 0xFE}  # tables, restarts, JFIF, Photoshop, Adobe, comments
_EXIF, _EXIF_MARK = 0xE1, b"Exif\0\0"
_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION, _SHORT, _ENTRY_BYTES = 0x0112, 3, 12
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # TIFF 6.0 §2
_FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (-1, 1), 7: (-1, -1), 8: (1, -1)}
"""EXIF orientation (EXIF 2.32 §4.6.4) -> steps along rows and columns; from 5 on they are exchanged afterwards."""
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
            orientation = _orientation(data)
            if orientation is None:
                return _NOT_PLAIN
            height, width = (int(side) for side in simplejpeg.decode_jpeg_header(data)[:2])
            size = (width, height)
            is_large = width * height > wanted.max_pixels or max(size) > MOST_SIDE_PX
            if is_large or shrunk_size(width, height, wanted, frames=1) != size:
                return _NOT_PLAIN
            pixels = _buffer(CHANNELS * width * height)
            simplejpeg.decode_jpeg(data, "RGB", buffer=pixels)  # strict: a mere warning of libjpeg raises
        except (ValueError, LookupError):
            return _NOT_PLAIN
    writer = FrameWriter(payload)
    if orientation == 1:
        writer.write_strips([pixels], size, 0, None)
    else:
        writer.write(_upright(np.frombuffer(pixels, np.uint8).reshape(height, width, CHANNELS), orientation), 0, None)
    (frame,) = writer.in_order()
    extra = bytes_after_end(source, wanted.format)
    notes = (f"{extra:,} bytes follow the end of the picture; they were not looked at",) if extra else ()
    return to_answer(
        Sheet(kind="image", width=frame.width, height=frame.height, frame_count=1, frames=(frame,), warnings=notes)
    )


def _orientation(data: mmap.mmap) -> int | None:
    """Walk the segments to the first scan: None unless it is 8-bit colour, and nothing tints it or is odd."""
    at, is_colour, orientation = 2, False, None
    while data[at] == 0xFF:
        kind, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == _SCAN:
            return (orientation or 1) if is_colour else None
        if kind == _EXIF and orientation is None:  # a second one might take the first one back
            orientation = _exif_orientation(data[at + 4 : end])
            if orientation not in _FLIPS:
                return None
        elif kind not in _PLAIN:
            return None
        if kind in _FRAMES:
            is_colour = (data[at + 4 : at + 5], data[at + 9 : at + 10]) == _COLOUR
        at = end
    return None


def _exif_orientation(segment: bytes) -> int | None:
    """1 where EXIF names none; None for what is odd in any way, since Pillow has its own opinion of it.

    Its first directory and all that this points to are whole (Pillow stops at what is not), and it has the tag once, as
    one short number. Raises LookupError.
    """
    tiff = segment.removeprefix(_EXIF_MARK)
    order = _ORDERS.get(tiff[:4])
    if order is None or len(tiff) == len(segment):
        return None

    def number(at: int, size: int) -> int:
        if at + size > len(tiff):
            raise IndexError
        return int.from_bytes(tiff[at : at + size], order)

    directory = number(4, 4)
    places = range(directory + 2, directory + 2 + _ENTRY_BYTES * number(directory, 2), _ENTRY_BYTES)
    number(places.stop, 4)  # the next directory's place: this one is whole
    for at in places:
        size = _TYPE_BYTES[number(at + 2, 2)] * number(at + 4, 4)
        if size > 4:  # then it lies elsewhere
            number(number(at + 8, 4) + size - 1, 1)
    tags = [at for at in places if number(at, 2) == _ORIENTATION]
    if not tags:
        return 1
    is_usual = len(tags) == 1 and (number(tags[0] + 2, 2), number(tags[0] + 4, 4)) == (_SHORT, 1)
    return number(tags[0] + 8, 2) if is_usual else None


def _upright(pixels: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """A view of a picture (H, W, 3), turned as its EXIF says."""
    down, right = _FLIPS[orientation]
    turned = pixels[::down, ::right]
    return turned if orientation < 5 else turned.swapaxes(0, 1)


def _buffer(size_bytes: int) -> memoryview:
    """Memory in huge pages where the kernel has them: 2 page faults for a megapixel instead of 768."""
    whole = -(-size_bytes // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES  # only a mapping of whole ones is laid on them
    region = mmap.mmap(-1, whole, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without them
        region.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(region)[:size_bytes]
