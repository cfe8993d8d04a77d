"""Our own video files in, chosen frames out; and pictures through a video codec and back. Training's one use of PyAV.

One reason: forged, original and mask video must be read at the very same frames, which the sampling of a scan
(whatever is cheap to decode) does not promise. These are data sets that the user vouches for: no jail.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from scanner.training.portraits import Pixels

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm"})


def count(path: Path) -> int:
    """How many frames a video has, by its packets: headers are not to be trusted."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def evenly(length: int, wanted: int) -> list[int]:
    """Up to `wanted` frame numbers, the middles of as many equal stretches of a video."""
    wanted = min(length, wanted)
    return [int((i + 0.5) * length / wanted) for i in range(wanted)]


def frames(path: Path, numbers: Sequence[int]) -> dict[int, Pixels]:
    """These frames (H, W, 3) RGB by number, in one pass from the beginning; numbers past the end are left out."""
    found: dict[int, Pixels] = {}
    wanted = set(numbers)
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                if len(found) == len(wanted):
                    break
    return found


def write(path: Path, pictures: Sequence[Pixels], *, crf: int = 18, fps: int = 25) -> None:
    """Pictures of one size as H.264 mp4."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        _encode(file, pictures, crf=crf, fps=fps)


def h264(picture: Pixels, crf: int) -> Pixels:
    """Through one H.264 frame pair (the second, predicted one is taken) and back: 23 is good, 40 is bad web video.

    4:2:0 needs even sides; an odd row or column is repeated and cut off again.
    """
    height, width = picture.shape[:2]
    even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    _encode(file, [even, even], crf=crf, fps=25)
    file.seek(0)
    with av.open(file, "r") as container:
        last = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1]
    return np.ascontiguousarray(last[:height, :width], np.uint8)


def _encode(file: BinaryIO, pictures: Sequence[Pixels], *, crf: int, fps: int) -> None:
    height, width = pictures[0].shape[:2]
    with av.open(file, "w", format="mp4") as container:
        options = {"crf": str(crf), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=Fraction(fps), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
