"""Files made to break parsers: each gets frames or a coded error, in time and bounded memory, and leaves nothing."""

import gc
import json
import logging
import os
import random
import re
import shutil
from pathlib import Path

import av
import media
import numpy as np
import pytest
from PIL import Image

from scanner.decoding.decode import decode
from scanner.decoding.jail import Jail
from scanner.errors import (
    BrokenMedia,
    DecoderFailed,
    Empty,
    NoVideo,
    ScanError,
    TooLong,
    TooManyPixels,
    UnsupportedMedia,
)
from scanner.settings import Settings

SETTINGS = Settings()
COLLECTED = Path(__file__).parents[2] / "shared" / "data" / "hostile"
SECRET = b"the secret that nobody may see"


@pytest.fixture(scope="module")
def prison():
    with Jail(SETTINGS) as held:
        yield held


@pytest.fixture
def read(prison, tmp_path):
    def read(data):
        path = data if isinstance(data, Path) else tmp_path / "medium.mp4"
        if isinstance(data, bytes):
            path.write_bytes(data)
        return decode(path, jail=prison, settings=SETTINGS)

    return read


@pytest.fixture
def secret(tmp_path):
    """A real, decodable video that another tenant left on this machine; its frames are of one shade."""
    folder = tmp_path / "other tenant"
    folder.mkdir()
    shade = np.full((96, 128, 3), 201, np.uint8)
    return media.clip(folder / "secret.ts", iter([shade] * 24))


@pytest.fixture
def peak(caplog):
    """The largest memory that a child used so far, in bytes, as the kernel counted."""
    caplog.set_level(logging.DEBUG, logger="scanner.decoding.jail")
    return lambda: max(int(found) for found in re.findall(r"peak (\d+) bytes", caplog.text))


def outcome(read, data):
    try:
        return read(data)
    except ScanError as error:
        return error


# ---------------------------------------------------------------- made here


def test_no_bytes_are_empty(read):
    with pytest.raises(Empty):
        read(b"")


@pytest.mark.parametrize("name", media.NOT_MEDIA)
def test_what_is_no_medium_is_unsupported(read, name):
    with pytest.raises(UnsupportedMedia, match="by content and not by name"):
        read(media.NOT_MEDIA[name])


@pytest.mark.parametrize(
    "bomb",
    [
        media.webp_bomb(),
        media.png_bomb(10_000, 10_000),
        media.png_bomb(60_000, 60_000)[:4096],
        media.gif_bomb(3, 65_535),
        media.gif_of_a_frame_beyond_its_canvas(30_000),
    ],
    ids=["34 bytes of WebP", "100 Mpx PNG", "3,600 Mpx PNG", "4,295 Mpx GIF", "900 Mpx in a 32 px GIF"],
)
def test_pixel_bombs_are_refused_by_their_headers(read, peak, bomb):
    base = read(media.picture("png")) and peak()
    with pytest.raises(TooManyPixels, match="megapixels; the limit is 50"):
        read(bomb)
    assert peak() - base < 64_000_000


def test_a_side_that_no_warp_and_no_jpeg_takes_is_refused(read):
    """50 Mpx in one line ended as a bug of ours, or as 30 s of detection and drawings that could not be made."""
    for width, height in ((32_767, 1), (1, 50_000_000), (70_000, 300)):
        with pytest.raises(TooManyPixels, match=f"{width}x{height}; a side may have 32,766"):
            read(media.png_bomb(width, height))
    with pytest.raises(TooManyPixels, match="32,766"):
        read(media.picture("jpeg", Image.new("RGB", (40_000, 8))))
    assert read(media.png_bomb(32_766, 2)).width == 32_766


def test_pictures_at_the_limit_stay_within_memory(read, peak):
    base = read(media.picture("png")) and peak()
    frame = read(media.png_bomb(7_000, 7_000)).frames[0]
    assert frame.pixels.shape == (7_000, 7_000, 3)
    assert peak() - base < 700_000_000


def test_twenty_thousand_frames_are_not_all_decoded(read, peak):
    base = read(media.picture("png")) and peak()
    decoded = read(media.gif_bomb(20_000, 5_000))
    assert decoded.frame_count == 20_000
    assert 1 <= len(decoded.frames) <= 16
    assert "of 20,000 frames" in decoded.warnings[0]
    assert peak() - base < 700_000_000


@pytest.mark.parametrize("name", ["webp", "png"])
def test_a_thousand_frames_are_sampled(read, name):
    shades = [Image.new("RGB", (32, 32), (number % 256, number // 256, 9)) for number in range(1000)]
    path_bytes = media.BytesIO()
    shades[0].save(
        path_bytes, name.upper(), save_all=True, append_images=shades[1:], duration=10, lossless=True, method=0
    )
    decoded = read(path_bytes.getvalue())
    assert len(decoded.frames) == 16


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "avif", "bmp", "heic"])
def test_cut_pictures_are_broken_never_judged_by_halves(read, name):
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8))
    data = media.picture(name, noise)
    for share in (0.02, 0.3, 0.6, 0.9):
        found = outcome(read, data[: max(20, int(len(data) * share))])
        assert isinstance(found, (BrokenMedia, UnsupportedMedia)), share


def test_cut_videos_give_sound_frames_or_a_code(read, tmp_path):
    for name in ("a.mp4", "a.mkv", "a.ts"):
        data = media.clip(tmp_path / name, count=72).read_bytes()
        for share in (0.01, 0.2, 0.5, 0.9):
            found = outcome(read, data[: max(30, int(len(data) * share))])
            assert isinstance(found, (BrokenMedia, NoVideo, UnsupportedMedia)) or found.frames


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "avif", "bmp", "heic", "mp4", "mkv", "ts"])
def test_flipped_bits_never_hurt(read, tmp_path, name):
    if name in {"mp4", "mkv", "ts"}:
        whole = media.clip(tmp_path / f"a.{name}", count=24, size=(64, 48)).read_bytes()
    else:
        whole = media.picture(name)
    dice = random.Random(name)
    for _ in range(12):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 4, 32))):
            data[dice.randrange(12, len(data))] ^= 1 << dice.randrange(8)
        outcome(read, bytes(data))


@pytest.mark.parametrize("name", media.playlists(Path("/")))
def test_a_playlist_dressed_as_video_reads_nobody_else_s_file(read, secret, name):
    with pytest.raises(UnsupportedMedia):
        read(media.playlists(secret)[name])


def test_an_mp4_that_refers_to_another_file_gets_nothing_of_it(read, secret):
    found = outcome(read, media.referring(secret))
    assert isinstance(found, (BrokenMedia, NoVideo, DecoderFailed))
    secret.write_bytes(SECRET * 100)
    assert SECRET not in str(outcome(read, media.referring(secret))).encode()


def test_a_polyglot_is_what_its_first_bytes_say(read, secret):
    page = b"<html><script>alert(1)</script></html>"
    for tail in (page, media.playlists(secret)["hls.mp4"], media.picture("gif"), secret.read_bytes()):
        decoded = read(media.picture("png") + tail)
        assert decoded.format == "png"
        assert media.corners(decoded.frames[0].pixels) == media.CORNERS
        assert "follow the end" in decoded.warnings[0]


def test_a_video_that_claims_to_be_huge_is_refused_before_it_is_decoded(read, tmp_path, peak):
    base = read(media.picture("png")) and peak()
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 9_000, 6_000, "yuvj420p"
        stream.codec_context.color_range = 2
        file.mux(stream.encode(av.VideoFrame(9_000, 6_000, "yuvj420p")))
        file.mux(stream.encode(None))
    with pytest.raises(TooManyPixels, match="9000x6000"):
        read(path)
    assert peak() - base < 128_000_000


def test_hundreds_of_streams_are_refused(read, tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        for _ in range(100):
            stream = file.add_stream("mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for stream in file.streams:
            file.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
            file.mux(stream.encode(None))
    with pytest.raises(TooLong, match="100 streams"):
        read(path)


def test_nothing_is_left_of_hostile_files(prison, read, tmp_path):
    assert read(media.picture("png"))
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    server = prison._server.process.pid
    for data in (media.webp_bomb(), media.picture("jpeg")[:200], media.gif_bomb(3, 65_535), b"", b"#EXTM3U"):
        outcome(read, data)
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [path.name for path in tmp_path.iterdir()] == ["medium.mp4"]
    assert prison._server.process.pid == server
    inner = Path(f"/proc/{server}/task/{server}/children").read_text().strip()
    assert Path(f"/proc/{inner}/task/{inner}/children").read_text() == ""


# ---------------------------------------------------------------- collected elsewhere


def test_every_collected_file_gets_frames_or_a_code(prison, read, tmp_path, secret):
    """The folder of collected files is not shipped; where it is absent the tests above are all there is."""
    odd = {}
    for path in sorted(path for path in COLLECTED.rglob("*") if path.is_file()):
        target = tmp_path / "medium" / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
        target.chmod(0o600)
        if path.stat().st_size < 10_000 and b"/SECRET_DIR" in path.read_bytes():
            target.write_bytes(path.read_bytes().replace(b"/SECRET_DIR", os.fsencode(secret.parent)))
        found = outcome(read, target)
        if isinstance(found, DecoderFailed) and "more memory" not in str(found):
            odd[str(path)] = str(found)
        if "manifest-tricks" in path.parts and not isinstance(found, UnsupportedMedia):
            odd[str(path)] = repr(found)
        target.unlink()
    assert odd == {}, json.dumps(odd, indent=1)
    assert read(media.picture("png")).frames
