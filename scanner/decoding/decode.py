"""A file into sampled, upright sRGB frames with their times.

In: a path. Out: `Decoded`. The parsing happens in the jail (`jpeg`, `picture`, `video`); this side
opens the file, names the format by its content and checks what comes back.
One reason: no codec library is ever imported where it could reach something.
"""

import functools
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from scanner.decoding.frames import CHANNELS, Placed, Sheet, Wanted
from scanner.decoding.jail import Jail
from scanner.errors import BadSource, DecoderFailed, Empty, Forbidden, Gone, TooLarge, UnsupportedMedia
from scanner.formats import ALLOWED, HEAD_BYTES, JPEG, Format, sniff
from scanner.settings import Settings

_BUDGET_SHARE = 0.6  # of the wall clock that a decoder may spend on looking for more frames


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: `pixels` (H, W, 3) uint8 RGB, upright, sRGB; its number in the medium; its time, None for a still."""

    pixels: npt.NDArray[np.uint8]
    index: int
    time_s: float | None


@dataclass(frozen=True, eq=False)
class Decoded:
    """What was seen of a medium; `width` and `height` are its own, upright, also where frames were shrunk to fit."""

    kind: Literal["image", "animation", "video"]
    format: str
    width: int
    height: int
    duration_s: float | None
    frame_count: int | None
    frames: tuple[Frame, ...]
    warnings: tuple[str, ...]


def decode(path: Path, *, jail: Jail, settings: Settings, max_frames: int | None = None) -> Decoded:
    """Decode a picture, an animation or a video: at most `max_frames` frames (default: the settings'), in time order.

    Raises MediaError leaves for what is wrong with the bytes; Gone, Forbidden or BadSource when there is no such file
    to read; TooLarge beyond the settings' size. Blocks: call it from a thread when there is an event loop.
    """
    descriptor = _open(path)
    try:
        found = _check(os.pread(descriptor, HEAD_BYTES, 0), os.fstat(descriptor).st_size, settings)
        wanted = Wanted(
            format=found.name,
            max_frames=max_frames or settings.max_frames,
            max_pixels=settings.max_image_pixels,
            max_decoded_bytes=settings.max_decoded_bytes,
            max_duration_s=settings.max_video_duration_s,
            max_streams=settings.max_streams,
            budget_s=settings.decode_timeout_s * _BUDGET_SHARE,
        )
        run = functools.partial(
            jail.run,
            fd=descriptor,
            options=msgspec.to_builtins(wanted),
            timeout_s=settings.decode_timeout_s,
            memory_bytes=settings.decode_memory_bytes,
        )
        answer, payload = run("jpeg") if found == JPEG else ({}, memoryview(b""))
        if not answer:  # anything but a plain JPEG
            answer, payload = run(found.kind)
    finally:
        os.close(descriptor)
    return _unpack(answer, payload, found, wanted)


def _open(path: Path) -> int:
    """Open a regular file for reading only; a device or a pipe could block or never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        msg = f"there is no file {path}"
        raise Gone(msg) from error
    except PermissionError as error:
        msg = f"{path} may not be read by this user"
        raise Forbidden(msg) from error
    if not Path(f"/proc/self/fd/{descriptor}").is_file():
        os.close(descriptor)
        msg = f"{path} is not a regular file"
        raise BadSource(msg)
    return descriptor


def _check(head: bytes, size_bytes: int, settings: Settings) -> Format:
    if size_bytes == 0:
        msg = "the file is empty"
        raise Empty(msg)
    found = sniff(head)
    if found is None:
        names = ", ".join(allowed.name for allowed in ALLOWED)
        msg = f"this is not a picture or a video that we read; we read {names}, by content and not by name"
        raise UnsupportedMedia(msg)
    limit_bytes = settings.max_image_bytes if found.kind == "image" else settings.max_video_bytes
    if size_bytes > limit_bytes:
        msg = f"the {found.name} file has {size_bytes / 1e6:.0f} MB; the limit is {limit_bytes / 1e6:g} MB"
        raise TooLarge(msg)
    return found


def _unpack(answer: dict[str, object], payload: memoryview, found: Format, wanted: Wanted) -> Decoded:
    """Frames over the shared memory; the child is not believed where a frame lies, nor that there are so many."""
    try:
        sheet = msgspec.convert(answer, Sheet)
        _check_work(sheet, len(payload), wanted)
        frames = tuple(Frame(_view(payload, placed), placed.index, placed.time_s) for placed in sheet.frames)
    except (msgspec.ValidationError, ValueError) as error:
        msg = f"the decoder's answer makes no sense ({error}); the file is made to break decoders"
        raise DecoderFailed(msg) from error
    return Decoded(
        kind=sheet.kind,
        format=found.name,
        width=sheet.width,
        height=sheet.height,
        duration_s=sheet.duration_s,
        frame_count=sheet.frame_count,
        frames=frames,
        warnings=sheet.warnings,
    )


def _check_work(sheet: Sheet, payload_bytes: int, wanted: Wanted) -> None:
    """Raise ValueError for more to look at than was asked for: one frame told of a thousand times costs a thousand."""
    taken_bytes = sum(CHANNELS * frame.width * frame.height for frame in sheet.frames)
    times_s = (sheet.duration_s, *(frame.time_s for frame in sheet.frames))
    if len(sheet.frames) > wanted.max_frames or taken_bytes > payload_bytes:
        msg = f"{len(sheet.frames)} frames of {taken_bytes:,} bytes in {payload_bytes:,}"
        raise ValueError(msg)
    if not all(math.isfinite(time_s) for time_s in times_s if time_s is not None):
        msg = "a time that is no number"
        raise ValueError(msg)


def _view(payload: memoryview, placed: Placed) -> npt.NDArray[np.uint8]:
    shape = (placed.height, placed.width, CHANNELS)
    flat = np.frombuffer(payload, np.uint8, count=placed.height * placed.width * CHANNELS, offset=placed.offset)
    return flat.reshape(shape)
