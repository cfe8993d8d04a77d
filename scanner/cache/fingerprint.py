"""Decoded frames in; what a picture is recognised by out: an exact digest, a perceptual hash, and its look.

    pixel_digest      sha256 over size, place and pixels of every frame: same digest, same verdict
    perceptual_hash   256 bits (`scanner.cache.phash`): nominates what may be the same picture, proves nothing
    thumbnail, crop   256x256 and 112x112 YCbCr, the pixels that are compared before anything is believed

One reason: every copy of a picture must be reduced by the very same arithmetic, here, never by the client.
"""

import hashlib
import io
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from PIL import Image

from scanner.cache.phash import CANONICAL_PX, perceptual_hash
from scanner.decoding.decode import Decoded

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

SCHEME = b"pixels/1"
"""Part of every pixel digest: change it with the decoder, when equal bytes may decode to other pixels."""
THUMB_PX, FACE_PX = 256, 112
FACE_MARGIN = 0.15
"""How far a face crop reaches beyond the face's box, in box sides: hair line, ears and chin are forged too."""
STORED_QUALITY = 85
"""JPEG keeps YCbCr as it is: off by 0.3 grey levels at worst in 8-px windows, where WebP 90 is by 1.9."""


def pixel_digest(decoded: Decoded) -> str:
    """Hex sha256 over the frames that were sampled, their times and the size of the medium.

    Equal digests mean that the model would see the same pixels: metadata and lossless containers do not matter.
    """
    digest = hashlib.sha256(SCHEME)
    digest.update(f"{decoded.kind} {decoded.width} {decoded.height} {len(decoded.frames)}".encode())
    for frame in decoded.frames:
        height, width = frame.pixels.shape[:2]
        digest.update(f"\n{frame.index} {frame.time_s} {width} {height}\n".encode())
        digest.update(np.ascontiguousarray(frame.pixels).data)
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Look:
    """One still picture as copies of it are compared."""

    pixels: Pixels = field(repr=False)  # (H, W, 3) RGB, full size

    @property
    def width(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(self.pixels.shape[0])

    @cached_property
    def picture(self) -> Image.Image:
        """The same, as Pillow has it."""
        return Image.fromarray(np.ascontiguousarray(self.pixels))

    @cached_property
    def canonical(self) -> Image.Image:
        """The picture squeezed into 512x512."""
        return self.picture.resize((CANONICAL_PX, CANONICAL_PX), Image.Resampling.BICUBIC, reducing_gap=3.0)

    @cached_property
    def perceptual_hash(self) -> int:
        """256 bits as a number; see `scanner.cache.phash`."""
        return perceptual_hash(self.pixels)

    @cached_property
    def thumbnail(self) -> Pixels:
        """(256, 256, 3) uint8 YCbCr."""
        return np.asarray(self.canonical.reduce(CANONICAL_PX // THUMB_PX).convert("YCbCr"))

    def crop(self, box: Box) -> Pixels:
        """(112, 112, 3) uint8 YCbCr of a face and its margin; `box` is x0, y0, x1, y1 in 0..1 of the picture."""
        (left, top, right, bottom), size = self._around(box), (FACE_PX, FACE_PX)
        crop = self.picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom), reducing_gap=3.0)
        return np.asarray(crop.convert("YCbCr"))

    def side_px(self, box: Box) -> float:
        """The shorter side of a relative box in this picture's pixels."""
        return min((box[2] - box[0]) * self.width, (box[3] - box[1]) * self.height)

    def _around(self, box: Box) -> Box:
        """The box with its margin in pixels, inside the picture and at least one pixel wide and high."""
        x0, y0, x1, y1 = box
        dx, dy = (x1 - x0) * FACE_MARGIN, (y1 - y0) * FACE_MARGIN
        left, top = max(0.0, (x0 - dx) * self.width), max(0.0, (y0 - dy) * self.height)
        left, top = min(left, self.width - 1.0), min(top, self.height - 1.0)
        right = min(float(self.width), max((x1 + dx) * self.width, left + 1))
        bottom = min(float(self.height), max((y1 + dy) * self.height, top + 1))
        return left, top, right, bottom


def pack(pixels: Pixels) -> bytes:
    """A thumbnail or a crop, YCbCr, as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode="YCbCr").save(buffer, "JPEG", quality=STORED_QUALITY, optimize=True)
    return buffer.getvalue()


def unpack(data: bytes, side_px: int) -> Pixels:
    """What `pack` packed; raises ValueError when it is not a square JPEG picture of `side_px`."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            if picture.size != (side_px, side_px):
                msg = f"a picture of {picture.size}, not {side_px} px square"
                raise ValueError(msg)
            picture.draft("YCbCr", picture.size)  # what is stored, not what it would look like in RGB
            return np.asarray(picture.convert("YCbCr"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # how Pillow says so
        msg = f"not a JPEG picture: {error}"
        raise ValueError(msg) from error
