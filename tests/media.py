"""Media made to order: pictures, clips, and files made to break parsers.

In: what a test wants. Out: bytes, or a file in the test's own folder.
One reason: tests need media of known content, and hostile files are not shipped but made.
"""

import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pillow_heif
from PIL import Image, ImageCms

pillow_heif.register_heif_opener()

CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))
"""Colours of the upper left, upper right, lower left and lower right quarter of `quarters`."""


def quarters(width: int = 64, height: int = 48) -> np.ndarray:
    """(height, width, 3) uint8 RGB: four quarters of four colours, so that every turn and mirroring shows."""
    picture = np.empty((height, width, 3), np.uint8)
    for place, colour in enumerate(CORNERS):
        top, left = (place // 2) * (height // 2), (place % 2) * (width // 2)
        picture[top : top + height // 2, left : left + width // 2] = colour
    return picture


def corners(pixels: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The colours in the middle of the four quarters, in the order of CORNERS."""
    height, width, _ = pixels.shape
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return tuple(tuple(int(value) for value in pixels[row, column]) for row in rows for column in columns)


def picture(name: str, image: Image.Image | None = None, **options: object) -> bytes:
    """An encoded picture; lossless where the format can be."""
    image = image or Image.fromarray(quarters())
    best: dict[str, object] = {"jpeg": {"quality": 98, "subsampling": 0}, "webp": {"lossless": True}}.get(name, {})
    stream = BytesIO()
    image.save(stream, {"heic": "HEIF"}.get(name, name.upper()), **(best | options))
    return stream.getvalue()


def animation(name: str, count: int, *, size: tuple[int, int] = (32, 24), frame_ms: int = 100) -> bytes:
    """`count` grey frames, the first black, each a shade brighter."""
    shades = [Image.new("RGB", size, (shade, shade, shade)) for shade in shades_of(count)]
    stream = BytesIO()
    extra: dict[str, object] = {"gif": {"optimize": False}, "webp": {"lossless": True}}.get(name, {})
    shades[0].save(stream, name.upper(), save_all=True, append_images=shades[1:], duration=frame_ms, loop=0, **extra)
    return stream.getvalue()


def shades_of(count: int) -> list[int]:
    return [place * 240 // max(1, count - 1) for place in range(count)]


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def swapped_profile() -> bytes:
    """An sRGB profile whose red and blue primaries have changed places: red pixels mean blue."""
    profile = bytearray(srgb_profile())
    count = int.from_bytes(profile[128:132], "big")
    entries = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, blue = entries[b"rXYZ"], entries[b"bXYZ"]
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


def shade_frames(count: int, width: int, height: int) -> Iterator[np.ndarray]:
    """Frames whose grey level is their number (16 + 2 per frame, round the clock), with a moving bar."""
    for number in range(count):
        frame = np.full((height, width, 3), 16 + number * 2 % 220, np.uint8)
        at = number * 4 % max(1, width - 8)
        frame[: height // 4, at : at + 8] = 255
        yield frame


def clip(  # noqa: PLR0913 - every knob is one that a test turns
    path: Path,
    frames: Iterator[np.ndarray] | None = None,
    *,
    count: int = 48,
    size: tuple[int, int] = (128, 96),
    rate: int = 24,
    gop: int = 12,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    b_frames: int = 2,
    options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Write a clip by PyAV; the container follows the file's name unless named."""
    fast = {
        "libx264": {"preset": "ultrafast", "crf": "12"},
        "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    }
    extra = {"libvpx-vp9": {"cpu-used": "8", "deadline": "realtime", "crf": "10"}, "libsvtav1": {"preset": "12"}}
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, options={**(fast | extra).get(codec, {}), **(options or {})})
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, rate)
        if codec.startswith("libx26"):
            stream.codec_context.max_b_frames = b_frames
        for number, pixels in enumerate(frames or shade_frames(count, *size)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def sound(path: Path, *, seconds: int = 1, codec: str = "aac") -> Path:
    """A file with sound only."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=44_100, layout="mono")
        for number in range(seconds * 43):
            tone = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.rate, frame.pts = 44_100, number * 1024
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def covered(mp4: Path) -> Path:
    """Give an mp4 whose index stands last a cover picture, as music shops do: moov/udta/meta/ilst/covr."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    cover = box(b"covr", box(b"data", struct.pack(">II", 13, 0) + picture("jpeg")))
    handler = box(b"hdlr", b"\0" * 8 + b"mdirappl" + b"\0" * 9)
    user_data = box(b"udta", box(b"meta", b"\0" * 4 + handler + box(b"ilst", cover)))
    data = mp4.read_bytes()
    at = data.rindex(b"moov") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    mp4.write_bytes(data[:at] + struct.pack(">I", size + len(user_data)) + data[at + 4 : at + size] + user_data)
    return mp4


def turned(mp4: Path, quarter_turns: int, *, mirrored: bool = False) -> Path:
    """Patch the display matrix of an mp4's video track (ISO 14496-12 §8.3.2): quarter turns, then mirrored."""
    one = 1 << 16
    a, b = ((one, 0), (0, one), (-one, 0), (0, -one))[quarter_turns % 4]
    flip = -1 if mirrored else 1
    matrix = struct.pack(">9i", a * flip, b, 0, -b * flip, a, 0, 0, 0, 1 << 30)
    data = bytearray(mp4.read_bytes())
    header = data.index(b"tkhd") + 4
    version = data[header]
    at = header + (52 if version == 1 else 40)
    data[at : at + 36] = matrix
    mp4.write_bytes(data)
    return mp4


# ---------------------------------------------------------------- hostile


def png_bomb(width: int, height: int) -> bytes:
    """A 1-bit PNG of one colour: a few kilobytes for any size."""
    row = zlib.compressobj(9)
    blank = b"\0" * (1 + (width + 7) // 8)
    body = b"".join(row.compress(blank) for _ in range(height)) + row.flush()
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def webp_bomb() -> bytes:
    """34 bytes that claim 16383 x 16383 lossless pixels."""
    size = (16_382 | 16_382 << 14).to_bytes(4, "little")
    one_colour = sum(1 << place for place in (3, 7, 11, 15, 19)).to_bytes(3, "little")  # five codes of one symbol each
    chunk = b"VP8L" + (13).to_bytes(4, "little") + b"\x2f" + size + one_colour + b"\0" * 6
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk


def gif_bomb(count: int, side: int) -> bytes:
    """`count` frames of one pixel on a canvas of side x side."""
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"\x21\xf9\x04\x04\x05\0\0\0"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return head + (control + frame) * count + b";"


def gif_of_a_frame_beyond_its_canvas(side: int) -> bytes:
    """One frame of side x side on a canvas of 32 x 32."""
    return gif_bomb(1, 32).replace(struct.pack("<HHHHB", 0, 0, 1, 1, 0), struct.pack("<HHHHB", 0, 0, side, side, 0))


def playlists(secret: Path) -> dict[str, bytes]:
    """Playlists and session files that name `secret`, by the name they are dressed up as."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?>'
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
        f"<Period><AdaptationSet><Representation id='1' bandwidth='1'><BaseURL>file://{secret}</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>"
    )
    texts = {
        "hls.mp4": hls.format(secret),
        "hls-file.mp4": hls.format(f"file://{secret}"),
        "hls-concat.ts": hls.format(f"concat:{secret}|{secret}"),
        "hls-subfile.mkv": hls.format(f"subfile,,start,0,end,9999,,:{secret}"),
        "ffconcat.mp4": f"ffconcat version 1.0\nfile '{secret}'\n",
        "dash.mp4": dash,
        "sdp.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "concat.mp4": f"concat:{secret}|{secret}",
    }
    return {name: text.encode() for name, text in texts.items()}


def referring(secret: Path) -> bytes:
    """An mp4 whose data lie, so its data reference says, in another file (a QuickTime alias to a URL)."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    where = f"file://{secret}".encode() + b"\0"
    references = box(b"dref", struct.pack(">II", 0, 1) + box(b"url ", b"\0\0\0\0" + where))
    table = box(b"stsd", struct.pack(">II", 0, 1) + box(b"avc1", b"\0" * 7 + b"\1" + b"\0" * 70))
    times = box(b"stts", struct.pack(">IIII", 0, 1, 1, 1)) + box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1))
    places = box(b"stsz", struct.pack(">III", 0, 100, 1)) + box(b"stco", struct.pack(">III", 0, 1, 0))
    media = box(b"minf", box(b"dinf", references) + box(b"stbl", table + times + places))
    header = box(b"mdhd", struct.pack(">IIIIIHH", 0, 0, 0, 1000, 1000, 0, 0))
    handler = box(b"hdlr", b"\0" * 8 + b"vide" + b"\0" * 13)
    track = box(b"trak", box(b"mdia", header + handler + media))
    return box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov", track) + box(b"mdat", b"\0" * 16)


NOT_MEDIA = {
    "vector.svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "paper.pdf": b"%PDF-1.7\n1 0 obj<<>>endobj\ntrailer<<>>\n%%EOF\n",
    "page.jpg": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "plain.png": b"just some words, many of them\n" * 40,
    "photo.tiff": b"II*\0\x08\0\0\0" + b"\0" * 64,
    "layers.psd": b"8BPS\0\1" + b"\0" * 64,
    "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "song.mp3": b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb\x90\0" * 200,
    "talk.wav": b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 64,
    "film.avi": b"RIFF\x24\0\0\0AVI LIST" + b"\0" * 64,
    "stream.flv": b"FLV\x01\x05\0\0\0\x09" + b"\0" * 64,
    "zeros.mp4": b"\0" * 5000,
    "zip.png": b"PK\x03\x04" + b"\0" * 64,
}
"""Files that are no media of ours, whatever their names say."""
