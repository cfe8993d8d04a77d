"""The short way for plain JPEGs shows what the long way shows, pixel by pixel, and leaves it all that is not plain."""

import io
import mmap
from pathlib import Path

import media
import msgspec
import numpy as np
import pytest
from PIL import Image, ImageCms

from scanner.decoding import jpeg, picture
from scanner.decoding.decode import decode
from scanner.decoding.frames import Sheet, Wanted
from scanner.decoding.jail import Jail
from scanner.errors import BrokenMedia, TooManyPixels
from scanner.settings import Settings

PORTRAITS = sorted((Path(__file__).parent / "media").glob("*_[123].jpg"))
WANTED = Wanted(
    format="jpeg",
    max_frames=16,
    max_pixels=50_000_000,
    max_decoded_bytes=500_000_000,
    max_duration_s=1,
    max_streams=1,
    budget_s=10,
)


@pytest.fixture
def look(tmp_path):
    """A task's answer and pixels for a file's bytes; (None, None) when it leaves the file to another."""

    def look(task, data, **changes):
        (tmp_path / "source").write_bytes(data)
        options = msgspec.to_builtins(msgspec.structs.replace(WANTED, **changes))
        with (tmp_path / "source").open("rb") as source, (tmp_path / "payload").open("w+b", buffering=0) as payload:
            answer = task(source, payload, options)
            payload.seek(0)
            pixels = np.frombuffer(payload.read(), np.uint8)
        if not answer:
            assert not len(pixels)
            return None, None
        sheet = msgspec.convert(answer, Sheet)
        return sheet, pixels.reshape(sheet.frames[0].height, sheet.frames[0].width, 3)

    return look


def written(pixels, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", **options)
    return stream.getvalue()


def scene(height=61, width=83):
    noise = np.random.default_rng(5).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


# ---------------------------------------------------------------- the same pixels


@pytest.mark.parametrize("path", PORTRAITS, ids=lambda path: path.stem)
def test_a_portrait_looks_as_it_does_to_pillow(look, path):
    data = written(np.asarray(Image.open(path).convert("RGB")))  # without what the shipped file says of itself
    ours, theirs = look(jpeg.decode, data), look(picture.decode, data)
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [10, 75, 100])
def test_every_kind_of_plain_jpeg_looks_as_it_does_to_pillow(look, subsampling, progressive, quality):
    data = written(scene(), subsampling=subsampling, progressive=progressive, quality=quality, comment=b"a note")
    ours, theirs = look(jpeg.decode, data), look(picture.decode, data)
    assert ours[0] == theirs[0]
    np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (17, 9), (1024, 700)])
def test_every_size_fills_its_buffer_exactly(look, size):
    data = written(scene(*size))
    np.testing.assert_array_equal(look(jpeg.decode, data)[1], look(picture.decode, data)[1])


def test_bytes_behind_the_end_are_told_alike(look):
    data = written(scene()) + b"PK\x03\x04 and an archive"
    ours, theirs = look(jpeg.decode, data)[0], look(picture.decode, data)[0]
    assert ours.warnings == theirs.warnings
    assert "19 bytes follow" in ours.warnings[0]


def test_a_kernel_without_huge_pages_will_do(look, monkeypatch):
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 9999)  # answered as an unknown piece of advice
    assert look(jpeg.decode, written(scene()))[0] is not None


# ---------------------------------------------------------------- what is left to Pillow


def with_exif(orientation=6, order=None, **more):
    exif = Image.Exif()
    exif.endian = order or exif.endian
    exif[0x010F] = "a camera"
    if orientation is not None:
        exif[0x0112] = orientation
    exif.update({0x8769: {0x9003: "2026:11:23 12:00:00"}, 0x829A: 0.01})
    return written(scene(), exif=exif, **more)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
def test_what_a_camera_turned_is_turned_as_by_pillow(look, orientation, order):
    data = with_exif(orientation, order)
    ours, theirs = look(jpeg.decode, data), look(picture.decode, data)
    assert ours[0] == theirs[0]
    assert (ours[0].width < ours[0].height) == (orientation in {5, 6, 7, 8})
    np.testing.assert_array_equal(ours[1], theirs[1])


def exif_segment(*entries, order="little", first=8):
    """An EXIF segment with these 12-byte entries in its first directory."""
    mark = b"II*\0" if order == "little" else b"MM\0*"
    body = len(entries).to_bytes(2, order) + b"".join(entries) + bytes(4)
    return b"Exif\0\0" + mark + first.to_bytes(4, order) + body


def turned(value, kind=3, count=1):
    return b"".join(part.to_bytes(size, "little") for part, size in ((0x0112, 2), (kind, 2), (count, 4), (value, 4)))


ODD_EXIF = {
    "no such orientation": exif_segment(turned(9)),
    "none at all": exif_segment(turned(0)),
    "two words for it": exif_segment(turned(1), turned(6)),
    "of another type": exif_segment(turned(1, kind=4)),
    "several values": exif_segment(turned(1, count=2)),
    "directory elsewhere": exif_segment(turned(1), first=4_000_000_000),
    "cut off": exif_segment(turned(1))[:-5],
    "an entry that lies outside": exif_segment(b"\x0f\x01\x02\0\t\0\0\0\xff\0\0\0", turned(6)),
    "an unknown type": exif_segment(b"\x0f\x01\x63\0\x01\0\0\0\0\0\0\0", turned(6)),
    "no order": exif_segment().replace(b"II*", b"IJ*"),
    "nothing in it": b"Exif\0\0",
}


@pytest.mark.parametrize("segment", ODD_EXIF.values(), ids=ODD_EXIF)
def test_exif_that_is_odd_is_left_to_pillow(look, segment):
    assert look(jpeg.decode, with_segment(0xE1, segment)) == (None, None)


def test_a_second_exif_is_left_to_pillow(look):
    plain = with_segment(0xE1, exif_segment(turned(1)))
    assert look(jpeg.decode, plain)[0] is not None
    segment = exif_segment(turned(1))
    twice = plain[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + plain[2:]
    assert look(jpeg.decode, twice) == (None, None)


def with_segment(kind, body):
    """A plain JPEG with one more segment behind its JFIF header."""
    data = written(scene())
    end = 4 + int.from_bytes(data[4:6], "big")
    return data[:end] + bytes([0xFF, kind]) + (len(body) + 2).to_bytes(2, "big") + body + data[end:]


def cmyk():
    stream = io.BytesIO()
    Image.fromarray(scene()).convert("CMYK").save(stream, "JPEG")
    return stream.getvalue()


NOT_PLAIN = {
    "XMP": lambda: with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    "colour profile": lambda: written(
        scene(), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "unknown segment": lambda: with_segment(0xE9, b"?"),
    "grey": lambda: written(scene()[:, :, 0]),
    "CMYK": cmyk,
    "nothing but the first bytes": lambda: b"\xff\xd8\xff",
    "no scan": lambda: written(scene())[:200],
}


@pytest.mark.parametrize("make", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_what_is_not_plain_is_left_to_pillow(look, make):
    assert look(jpeg.decode, make()) == (None, None)


def test_what_is_too_large_is_left_to_pillow(look):
    data = written(scene())
    assert look(jpeg.decode, data, max_pixels=5000) == (None, None)
    assert look(jpeg.decode, data, max_decoded_bytes=5000) == (None, None)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
def test_a_truncated_file_is_left_to_pillow(look, share):
    data = written(scene())
    assert look(jpeg.decode, data[: int(share * len(data))]) == (None, None)


@pytest.mark.filterwarnings("ignore")  # Pillow's remarks on broken EXIF; `picture.prepare` ignores them in the jail
@pytest.mark.parametrize("make", [lambda: written(scene(), quality=90), lambda: with_exif(6, quality=90)])
def test_no_damage_shows_other_pixels_than_pillow_shows(look, make):
    data, rng, shown = make(), np.random.default_rng(1), 0
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(2, len(data), rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        sheet, pixels = look(jpeg.decode, bytes(broken))
        if sheet:
            shown += 1
            theirs = look(picture.decode, bytes(broken))
            assert sheet == theirs[0]
            np.testing.assert_array_equal(pixels, theirs[1])
    assert shown > 25


# ---------------------------------------------------------------- through the jail


@pytest.fixture(scope="module")
def prison():
    with Jail(Settings()) as held:
        yield held


@pytest.fixture
def read(prison, tmp_path):
    def read(data, **settings):
        (tmp_path / "medium").write_bytes(data)
        return decode(tmp_path / "medium", jail=prison, settings=Settings(**settings))

    return read


def test_a_plain_one_never_wakes_the_server_of_the_others(read, prison):
    prison.close()
    read(media.picture("jpeg"))
    assert set(prison._servers) == {"scanner.decoding.jpeg"}


def test_one_that_is_not_plain_is_decoded_all_the_same(read):
    assert read(NOT_PLAIN["colour profile"]()).frames[0].pixels.shape == (61, 83, 3)
    assert read(with_exif()).frames[0].pixels.shape == (83, 61, 3)  # turned upright


def test_damage_and_size_have_the_same_codes_as_ever(read):
    data = written(scene())
    with pytest.raises(BrokenMedia, match="truncated or corrupt"):
        read(data[:-300])
    with pytest.raises(TooManyPixels, match="83x61"):
        read(data, max_image_pixels=5000)
