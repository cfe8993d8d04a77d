"""Which format a file is, by its first bytes, never by its name or its Content-Type.

In: the head of a file. Out: a `Format` of the allow-list, or None.
One reason: what is not on this list (playlists, SVG, PDF, audio, ...) never reaches a decoder.
"""

from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 4096
"""How much of a file `sniff` wants to see; less is fine when the file is shorter."""

_HTML_TAGS = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<title", b"<meta")
_TS_PACKET = 188
_M2TS_PACKET = 192  # a 4-byte time stamp before each packet (Blu-ray)
_TS_SYNC = 0x47
_TS_PACKETS_SEEN = 3
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_EBML_MAGIC = b"\x1a\x45\xdf\xa3"

# ISO base media file format brands (mp4ra.org). A file is what its major brand says, else what a compatible brand says.
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_PICTURE_BRANDS = frozenset({b"mif1", b"msf1", b"mif2", b"miaf", b"MiHB"})
_AUDIO_BRANDS = frozenset({b"M4A ", b"M4B ", b"M4P ", b"aax ", b"aaxc"})
_FIRST_BOXES = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})  # QuickTime files from before `ftyp`


@dataclass(frozen=True)
class Format:
    """One allowed format: `name` as it stands in a verdict, `kind` decides which decoder gets it."""

    name: str
    kind: Literal["image", "video"]


JPEG = Format("jpeg", "image")
PNG = Format("png", "image")
WEBP = Format("webp", "image")
GIF = Format("gif", "image")
AVIF = Format("avif", "image")
BMP = Format("bmp", "image")
HEIC = Format("heic", "image")
MP4 = Format("mp4", "video")
MATROSKA = Format("matroska", "video")
MPEGTS = Format("mpegts", "video")

ALLOWED = (JPEG, PNG, WEBP, GIF, AVIF, BMP, HEIC, MP4, MATROSKA, MPEGTS)
"""Everything that may reach a decoder; animations (GIF, WebP, AVIF, APNG) count as pictures here."""


def sniff(head: bytes) -> Format | None:
    """Name the format of a file by its first bytes (at most HEAD_BYTES are looked at); None = not allowed."""
    head = head[:HEAD_BYTES]
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    if head.startswith(_EBML_MAGIC):
        return MATROSKA
    if _is_bmp(head):
        return BMP
    if _is_mpegts(head):
        return MPEGTS
    return _sniff_boxes(head)


def looks_like_html(head: bytes) -> bool:
    """Tell whether the bytes start like a web page (a login page, an error page, a video page)."""
    start = head[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<?xml", b"<!--")):
        return b"<html" in start
    return start.startswith(_HTML_TAGS)


def _is_bmp(head: bytes) -> bool:
    """`BM` alone is two letters of text; the size of the second header makes it a bitmap."""
    return head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS


def _is_mpegts(head: bytes) -> bool:
    """A sync byte at the start of each of the first packets (ISO 13818-1 §2.4.3.2)."""
    for packet, offset in ((_TS_PACKET, 0), (_M2TS_PACKET, 4)):
        sync = head[offset::packet][:_TS_PACKETS_SEEN]
        if len(sync) == _TS_PACKETS_SEEN and all(byte == _TS_SYNC for byte in sync):
            return True
    return False


def _sniff_boxes(head: bytes) -> Format | None:
    """Tell pictures from video among the ISO base media files by their brands (ISO 14496-12 §4.3)."""
    if len(head) < 8:  # a box is a 4-byte size and a 4-byte type
        return None
    size, kind = int.from_bytes(head[:4], "big"), head[4:8]
    if kind in _FIRST_BOXES and (size >= 8 or size in (0, 1)):  # 0 = to the end, 1 = a 64-bit size follows
        return MP4
    if kind != b"ftyp":
        return None
    major = head[8:12]
    listed = head[16 : max(16, min(size, len(head)))]
    compatible = {listed[i : i + 4] for i in range(0, len(listed) - 3, 4)}
    if major in _AUDIO_BRANDS:
        return None
    for brands, found in ((_AVIF_BRANDS, AVIF), (_HEIC_BRANDS, HEIC)):
        if major in brands:
            return found
    if major in _PICTURE_BRANDS:
        if compatible & _AVIF_BRANDS:
            return AVIF
        return HEIC
    return MP4
