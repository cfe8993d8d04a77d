"""A picture's bytes into upright sRGB frames; runs in the jail, and only there.

In: an open file and the format that its first bytes named. Out: a `Sheet`, and the pixels in the payload.
One reason: what is known about picture files (size before pixels, orientation, colour, animation) stands in one place.

Full resolution always: scaling while decoding (JPEG draft mode) is four times faster on 12 Mpx, but smooths away the
traces that the detector looks for.
"""

import struct
import time
import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from scanner.decoding.frames import CHANNELS, MOST_SIDE_PX, FrameWriter, Sheet, Wanted, shrunk_size, spread, to_answer
from scanner.errors import BrokenMedia, TooManyPixels
from scanner.fetching.tail import bytes_after_end

PLUGINS = {
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "avif": ("AVIF",),
    "bmp": ("BMP",),
    "heic": ("HEIF",),
}
"""Pillow's name for each format that we let it open; nothing else is tried."""

_ANIMATED = frozenset({"png", "webp", "gif", "avif"})  # several pictures in a JPEG or HEIC are other views, not time
_WALKED_PIXELS = 200_000_000  # animation pixels decoded on the way to the sampled frames: about 1 s
_STRIP_BYTES = 64 * 1024  # larger blocks are fresh pages from malloc (from 128 KB on), each of which costs a fault
_BROKEN = (
    OSError,  # truncated, or a decoder's refusal
    EOFError,  # libheif
    AssertionError,  # Pillow of itself: a palette that is not there
    SyntaxError,  # Pillow's word for a bad header
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
    RuntimeError,  # libavif
)
"""What Pillow and its plugins raise on bytes that are not what they claim."""
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF tag 0x0112 (EXIF 2.32 §4.6.4) -> what turns the picture upright."""


def prepare() -> None:
    """Load every plugin and codec now: in the jail there is nothing to load them from."""
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters becomes a warning of ours
    Image.init()
    pillow_heif.register_heif_opener(thumbnails=False)
    pillow_heif.options.DECODE_THREADS = 1
    dot = Image.new("RGB", (16, 16), "red")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for names in PLUGINS.values():
        for encoder in set(names) - {"MPO"}:
            stream = BytesIO()
            dot.save(stream, encoder, icc_profile=profile)
            with Image.open(BytesIO(stream.getvalue()), formats=names) as image:
                _upright_rgb(image, [])


def decode(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Decode a picture, or the sampled frames of an animation, to sRGB.

    Raises TooManyPixels (from the header, before any pixel is decoded) and BrokenMedia.
    """
    wanted = msgspec.convert(options, Wanted)
    ceiling = -(-wanted.max_pixels // 2)  # Pillow only warns up to twice that, and then raises
    usual = Image.MAX_IMAGE_PIXELS
    # Before we see the size, WebP allocates, and GIF fills a first frame that outgrows its canvas (320 bytes: 3 GB).
    Image.MAX_IMAGE_PIXELS = ceiling if wanted.format in {"webp", "gif"} else None
    notes: list[str] = []
    try:
        with Image.open(source, formats=PLUGINS[wanted.format]) as image:
            _check_size(image.size, wanted)
            Image.MAX_IMAGE_PIXELS = ceiling  # frames of a GIF may outgrow its canvas
            count = getattr(image, "n_frames", 1) if wanted.format in _ANIMATED else 1
            if count > 1:
                sheet = _decode_animation(image, count, FrameWriter(payload), wanted, notes)
            else:
                sheet = _decode_still(image, FrameWriter(payload), wanted, notes)
    except Image.DecompressionBombError as error:
        msg = f"the picture claims too many megapixels; the limit is {wanted.max_pixels / 1e6:g}; try a smaller copy"
        raise TooManyPixels(msg) from error
    except UnidentifiedImageError as error:
        msg = f"this file starts like a {wanted.format} picture but is none; get another copy"
        raise BrokenMedia(msg) from error
    except _BROKEN as error:
        msg = f"this {wanted.format} picture is truncated or corrupt ({error}); get another copy"
        raise BrokenMedia(msg) from error
    finally:
        Image.MAX_IMAGE_PIXELS = usual
    if extra := bytes_after_end(source, wanted.format):
        notes.append(f"{extra:,} bytes follow the end of the picture; they were not looked at")
    return to_answer(msgspec.structs.replace(sheet, warnings=tuple(dict.fromkeys(notes))))


def _check_size(size: tuple[int, int], wanted: Wanted) -> None:
    width, height = size
    if width * height > wanted.max_pixels:
        msg = (
            f"the picture is {width}x{height}, {width * height / 1e6:.0f} megapixels; the limit is "
            f"{wanted.max_pixels / 1e6:g}; try a smaller copy"
        )
        raise TooManyPixels(msg)
    if max(size) > MOST_SIDE_PX:
        msg = f"the picture is {width}x{height}; a side may have {MOST_SIDE_PX:,} pixels at most; cut it into parts"
        raise TooManyPixels(msg)
    if min(size) < 1:
        msg = f"the picture is {width}x{height}: there is nothing in it"
        raise BrokenMedia(msg)


def _decode_still(image: ImageFile.ImageFile, writer: FrameWriter, wanted: Wanted, notes: list[str]) -> Sheet:
    upright = _upright_rgb(image, notes)
    width, height = upright.size
    fitting = _fit(upright, wanted, notes)
    writer.write_strips(_strips(fitting), fitting.size, 0, None)
    return Sheet(kind="image", width=width, height=height, frame_count=1, frames=writer.in_order())


def _decode_animation(
    image: ImageFile.ImageFile, count: int, writer: FrameWriter, wanted: Wanted, notes: list[str]
) -> Sheet:
    """First frame, last frame and evenly between, walking as far as the budget allows: most formats cannot jump."""
    reach = max(1, min(count, _WALKED_PIXELS // (image.width * image.height)))
    room = max(1, wanted.max_decoded_bytes // (CHANNELS * image.width * image.height))
    chosen = set(spread(reach, min(room, wanted.max_frames)))
    clock_s: float | None = 0.0
    size = image.size
    for index in range(reach):
        if index > 0 and time.process_time() > wanted.budget_s:
            reach = index
            break
        try:
            image.seek(index)
            if index in chosen:
                frame = _upright_rgb(image, notes)
        except _BROKEN:
            if not writer.placed:
                raise
            notes.append(f"the animation breaks off at frame {index} of {count}")
            reach = index
            break
        start_s, clock_s = _times(image, clock_s)
        if index in chosen:
            size = frame.size
            fitting = _fit(frame, wanted, notes)
            writer.write_strips(_strips(fitting), fitting.size, index, start_s)
    if reach < count:
        notes.append(f"only the first {reach:,} of {count:,} frames of the animation were looked at")
        clock_s = None
    return Sheet(
        kind="animation",
        width=size[0],
        height=size[1],
        duration_s=clock_s,
        frame_count=count,
        frames=writer.in_order(),
    )


def _times(image: Image.Image, clock_s: float | None) -> tuple[float | None, float | None]:
    """When this frame starts and ends: WebP and AVIF tell the start (once decoded), GIF and PNG how long each lasts."""
    duration_ms = image.info.get("duration")
    start_ms = image.info.get("timestamp")
    start_s = start_ms / 1000 if start_ms is not None else clock_s
    if start_s is None or duration_ms is None:
        return start_s, None
    return start_s, start_s + duration_ms / 1000


def _upright_rgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """The current frame as people see it: sRGB, on white where transparent, upright."""
    image.load()
    rgb = _to_srgb(_on_white(_eight_bits(image)), image.info.get("icc_profile"), notes)
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _BROKEN:
        notes.append("the EXIF data is broken; the picture was taken as upright")
        orientation = 1
    turn = _TO_UPRIGHT.get(orientation)
    return rgb if turn is None else rgb.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit greys to 8 bits; Pillow reads 16-bit colour as 8 already."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float64) / 257  # 65535 -> 255
        return Image.fromarray(grey.clip(0, 255).round().astype(np.uint8), "L")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    """Transparent parts on white, as most pages show them; modes that a colour profile may speak of stay."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        return ground
    return image if image.mode in {"RGB", "L", "CMYK"} else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Apply the embedded ICC profile; one that does not fit or does not parse is left out, with a warning."""
    if profile:
        try:
            embedded = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, embedded, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, *_BROKEN):
            notes.append("the colour profile could not be applied; colours may be off")
        else:
            if converted is not None:
                return converted
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(image: Image.Image, wanted: Wanted, notes: list[str]) -> Image.Image:
    size = shrunk_size(image.width, image.height, wanted, frames=1)
    if size == image.size:
        return image
    notes.append(f"frames were shrunk from {image.width}x{image.height} to {size[0]}x{size[1]} to fit into memory")
    return image.resize(size, Image.Resampling.LANCZOS)


def _strips(image: Image.Image) -> Iterator[memoryview]:
    """The rows of an RGB picture, in strips small enough to use the same memory again and stay in the cache."""
    rows = max(1, _STRIP_BYTES // (CHANNELS * image.width))
    for top in range(0, image.height, rows):
        yield memoryview(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
