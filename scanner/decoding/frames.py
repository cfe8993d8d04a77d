"""What the jailed decoders hand over: pixels in the payload, and where each frame lies in it.

In: RGB rows from a decoder. Out: a payload and a `Sheet` that describes it.
One reason: pictures and video answer in one shape, which the parent can check against the payload's size.
"""

from collections.abc import Iterable
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

CHANNELS = 3
MOST_SIDE_PX = 32_766
"""Of a picture or a video frame: OpenCV warps no longer one (SHRT_MAX - 1), and a JPEG of the evidence has 65,535."""
_STRIP_BYTES = 4_000_000  # written at once; a whole 50 Mpx picture as bytes would cost 150 MB more


_Side = Annotated[int, Meta(ge=1, le=4 * MOST_SIDE_PX)]  # pixels may be up to four times as wide as high
_Count = Annotated[int, Meta(ge=0)]


class Placed(msgspec.Struct, frozen=True):
    """One frame in the payload: (height, width, 3) uint8 from byte `offset` on."""

    index: _Count
    time_s: float | None
    width: _Side
    height: _Side
    offset: _Count


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of a decoder; `width` and `height` are those of the medium, upright, before any shrinking."""

    kind: Literal["image", "animation", "video"]
    width: _Side
    height: _Side
    duration_s: float | None = None
    frame_count: _Count | None = None
    frames: Annotated[tuple[Placed, ...], Meta(min_length=1)]
    warnings: Annotated[tuple[Annotated[str, Meta(max_length=1_000)], ...], Meta(max_length=100)] = ()


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder is asked for, and how far it may go."""

    format: str
    max_frames: int
    max_pixels: int
    max_decoded_bytes: int
    max_duration_s: float
    max_streams: int
    budget_s: float
    """CPU time after which a decoder stops looking for more frames, well before it would be killed."""


class FrameWriter:
    """Writes frames one after the other into the payload and remembers where."""

    def __init__(self, payload: BinaryIO) -> None:
        self._payload = payload
        self._offset = 0
        self.placed: list[Placed] = []

    def write(self, pixels: npt.NDArray[np.uint8], index: int, time_s: float | None) -> None:
        """Append one frame, (H, W, 3) uint8 RGB."""
        height, width, _ = pixels.shape
        rows = max(1, _STRIP_BYTES // (width * CHANNELS))
        strips = (np.ascontiguousarray(pixels[top : top + rows]).data.cast("B") for top in range(0, height, rows))
        self.write_strips(strips, (width, height), index, time_s)

    def write_strips(
        self, strips: Iterable[memoryview], size: tuple[int, int], index: int, time_s: float | None
    ) -> None:
        """Append one frame of `size` (width, height), whose rows come in strips from top to bottom."""
        width, height = size
        self._payload.truncate(self._offset + height * width * CHANNELS)  # huge pages only where a file is known to be
        for strip in strips:
            write_all(self._payload, strip)
        self.placed.append(Placed(index, time_s, width, height, self._offset))
        self._offset += height * width * CHANNELS

    def in_order(self) -> tuple[Placed, ...]:
        """The frames as they follow each other in the medium."""
        return tuple(sorted(self.placed, key=lambda frame: frame.index))


def write_all(payload: BinaryIO, data: memoryview) -> None:
    """Write every byte: an unbuffered file may take fewer than it is given (2 GiB at once on Linux)."""
    while data:
        data = data[payload.write(data) :]


def shrunk_size(width: int, height: int, wanted: Wanted, frames: int) -> tuple[int, int]:
    """The size at which `frames` frames fit into the payload; the same size when they do."""
    room_px = wanted.max_decoded_bytes // (CHANNELS * max(1, frames))
    if width * height <= room_px:
        return width, height
    scale = (room_px / (width * height)) ** 0.5
    return max(1, int(width * scale)), max(1, int(height * scale))


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` indices, evenly: the first, the last and what lies between them."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [0]
    return [round(place * (count - 1) / (wanted - 1)) for place in range(wanted)]


def to_answer(sheet: Sheet) -> dict[str, Any]:
    """The sheet as what may cross the jail's wall."""
    answer: dict[str, Any] = msgspec.to_builtins(sheet)
    return answer
