"""What comes out of the decoder is what went in: pixels, turns, colours, times; and only as much as was asked for."""

import io
import os
from pathlib import Path

import av
import media
import numpy as np
import pytest
from PIL import Image

from scanner.decoding import decode as decode_module
from scanner.decoding.decode import Decoded, Frame, decode
from scanner.decoding.jail import Jail
from scanner.errors import BadSource, BrokenMedia, DecoderFailed, Gone, NoVideo, TooLarge, TooLong, UnsupportedMedia
from scanner.fetching.tail import bytes_after_end
from scanner.settings import Settings

SETTINGS = Settings()
DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def prison():
    with Jail(SETTINGS) as held:
        yield held


@pytest.fixture
def read(prison, tmp_path):
    """Decode bytes or a file, with other settings where a test names them."""

    def read(data: bytes | Path, *, max_frames: int | None = None, **settings: object) -> Decoded:
        path = data if isinstance(data, Path) else tmp_path / "medium"
        if isinstance(data, bytes):
            path.write_bytes(data)
        return decode(path, jail=prison, settings=Settings(**settings), max_frames=max_frames)

    return read


def near(found, wanted, tolerance):
    return np.abs(np.asarray(found, int) - np.asarray(wanted, int)).max() <= tolerance


def shades(decoded: Decoded) -> list[int]:
    """The grey of each frame, away from the bar that moves at the top."""
    return [int(np.median(frame.pixels[frame.pixels.shape[0] // 2 :])) for frame in decoded.frames]


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize(
    ("name", "tolerance"), [("png", 0), ("bmp", 0), ("gif", 0), ("webp", 0), ("jpeg", 3), ("avif", 12), ("heic", 12)]
)
def test_every_picture_format_gives_back_its_pixels(read, name, tolerance):
    decoded = read(media.picture(name))
    assert (decoded.kind, decoded.format, decoded.width, decoded.height) == ("image", name, 64, 48)
    (frame,) = decoded.frames
    assert frame.pixels.dtype == np.uint8
    assert frame.pixels.shape == (48, 64, 3)
    assert (frame.index, frame.time_s) == (0, None)
    assert near(media.corners(frame.pixels), media.CORNERS, tolerance)
    assert decoded.warnings == ()


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_upright(read, name, orientation):
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF value -> Pillow's transpose that lays the picture down so
    image = Image.fromarray(media.quarters())
    laid = image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = read(media.picture(name, laid, exif=exif.tobytes()))
    assert (decoded.width, decoded.height) == (64, 48)
    assert near(media.corners(decoded.frames[0].pixels), media.CORNERS, 12)


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "png"),
        ("L", "jpeg"),
        ("1", "png"),
        ("LA", "png"),
        ("P", "png"),
        ("P", "bmp"),
        ("CMYK", "jpeg"),
        ("RGBA", "webp"),
    ],
)
def test_every_mode_becomes_rgb(read, mode, name):
    image = Image.fromarray(media.quarters()).convert(mode)
    (frame,) = read(media.picture(name, image)).frames
    assert near(media.corners(frame.pixels), media.corners(np.asarray(image.convert("RGB"))), 6)


def test_sixteen_bits_become_eight_by_their_value(read):
    grey = np.tile(np.linspace(0, 65_535, 64).astype(np.uint16), (8, 1))
    (frame,) = read(media.picture("png", Image.fromarray(grey))).frames
    assert near(frame.pixels[0, :, 1], np.linspace(0, 255, 64), 1)


@pytest.mark.parametrize("name", ["png", "webp", "avif"])
def test_transparent_parts_are_white(read, name):
    image = Image.fromarray(np.dstack([media.quarters(), np.zeros((48, 64), np.uint8)]))
    image.paste((9, 9, 9, 255), (0, 0, 32, 48))
    (frame,) = read(media.picture(name, image)).frames
    assert near(frame.pixels[24, 8], (9, 9, 9), 6)
    assert near(frame.pixels[24, 56], (255, 255, 255), 6)


def test_a_transparent_colour_of_a_palette_is_white_too(read):
    image = Image.fromarray(media.quarters()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    (frame,) = read(media.picture("png", image, transparency=image.getpixel((2, 2)))).frames
    assert media.corners(frame.pixels) == ((255, 255, 255), *media.CORNERS[1:])


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "avif"])
def test_an_embedded_profile_is_applied(read, name):
    decoded = read(media.picture(name, icc_profile=media.swapped_profile()))
    assert near(media.corners(decoded.frames[0].pixels)[0], (0, 0, 255), 12)  # its red means blue
    assert decoded.warnings == ()


def test_an_srgb_profile_changes_nothing(read):
    (frame,) = read(media.picture("png", icc_profile=media.srgb_profile())).frames
    assert near(media.corners(frame.pixels), media.CORNERS, 1)


def test_a_profile_that_makes_no_sense_is_left_out_and_said(read):
    decoded = read(media.picture("png", icc_profile=b"no profile at all"))
    assert media.corners(decoded.frames[0].pixels) == media.CORNERS
    assert "colour profile" in decoded.warnings[0]


def test_a_large_photo_keeps_every_pixel(read):
    noise = np.random.default_rng(0).integers(0, 256, (1500, 2000, 3), np.uint8)
    decoded = read(media.picture("png", Image.fromarray(noise), compress_level=1))
    assert np.array_equal(decoded.frames[0].pixels, noise)


def test_frames_are_writable_and_a_frame_of_its_own_each(read):
    first, second, *_ = read(media.animation("gif", 4)).frames
    before = second.pixels.copy()
    first.pixels[:] = 77
    assert np.array_equal(second.pixels, before)


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "webp"])
def test_bytes_after_the_end_are_said(read, name):
    data = media.picture(name)
    assert read(data).warnings == ()
    assert read(data + b"PK\x03\x04 and a zip file" * 9).warnings == (
        "171 bytes follow the end of the picture; they were not looked at",
    )


@pytest.mark.parametrize("name", ["jpeg", "png", "gif", "webp"])
def test_the_end_of_a_cut_picture_is_no_crash(tmp_path, name):
    data = media.picture(name)
    for cut in range(14, len(data), max(1, len(data) // 40)):
        path = tmp_path / "cut"
        path.write_bytes(data[:cut])
        with path.open("rb") as file:
            assert bytes_after_end(file, name) == 0


# ---------------------------------------------------------------- animations


@pytest.mark.parametrize(("name", "tolerance"), [("gif", 0), ("png", 0), ("webp", 0), ("avif", 8)])
def test_animations_are_sampled_evenly_with_their_times(read, name, tolerance):
    decoded = read(media.animation(name, 31), max_frames=7)
    assert (decoded.kind, decoded.format, decoded.frame_count) == ("animation", name, 31)
    assert [frame.index for frame in decoded.frames] == [0, 5, 10, 15, 20, 25, 30]
    assert [frame.time_s for frame in decoded.frames] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3])
    assert near(shades(decoded), [media.shades_of(31)[frame.index] for frame in decoded.frames], tolerance)
    assert decoded.duration_s == pytest.approx(3.1)


@pytest.mark.parametrize("name", ["gif", "png", "webp"])
def test_one_frame_of_an_animation_is_its_first(read, name):
    decoded = read(media.animation(name, 5), max_frames=1)
    assert [frame.index for frame in decoded.frames] == [0]
    assert decoded.kind == "animation"


def test_a_long_animation_is_looked_at_from_the_front_and_that_is_said(read):
    decoded = read(media.gif_bomb(2000, 1000))
    assert decoded.frame_count == 2000
    assert len(decoded.frames) == 16
    assert decoded.frames[-1].index == 199
    assert "only the first 200 of 2,000 frames" in decoded.warnings[0]


def test_an_animation_that_breaks_off_keeps_what_it_has(read):
    data = media.animation("gif", 12, size=(200, 150))
    decoded = read(data[: len(data) * 2 // 3])
    assert 1 < len(decoded.frames) < 12
    assert decoded.warnings


# ---------------------------------------------------------------- video


@pytest.mark.parametrize(
    ("file", "codec", "container", "pixel_format"),
    [
        ("a.mp4", "libx264", "mp4", "yuv420p"),
        ("a.mov", "libx264", "mp4", "yuv444p"),
        ("a.mkv", "libx264", "matroska", "yuv420p10le"),
        ("a.ts", "libx264", "mpegts", "yuv420p"),
        ("b.mp4", "libx265", "mp4", "yuv420p"),
        ("b.mkv", "libx265", "matroska", "yuv420p10le"),
        ("a.webm", "libvpx-vp9", "matroska", "yuv420p"),
        ("c.mp4", "libsvtav1", "mp4", "yuv420p"),
        ("d.mp4", "mpeg4", "mp4", "yuv420p"),
        ("e.mkv", "mjpeg", "matroska", "yuvj420p"),
    ],
)
def test_every_video_format_gives_frames_and_times(read, tmp_path, file, codec, container, pixel_format):
    decoded = read(media.clip(tmp_path / file, codec=codec, pixel_format=pixel_format), max_frames=6)
    assert (decoded.kind, decoded.format, decoded.width, decoded.height) == ("video", container, 128, 96)
    assert decoded.frame_count == 48
    assert decoded.duration_s == pytest.approx(2.0, abs=0.05)
    assert len(decoded.frames) == 6
    assert [frame.index for frame in decoded.frames] == sorted({frame.index for frame in decoded.frames})
    assert [frame.time_s for frame in decoded.frames] == pytest.approx(
        [f.index / 24 for f in decoded.frames], abs=0.002
    )
    assert near(shades(decoded), [16 + 2 * frame.index for frame in decoded.frames], 6)


def test_keyframes_are_the_frames_that_reading_on_finds(read, tmp_path):
    path = media.clip(tmp_path / "a.mp4", count=240, gop=10)
    by_keyframes = read(path, max_frames=8)
    assert all(frame.index % 10 == 0 for frame in by_keyframes.frames)
    with av.open(str(path)) as file:
        every = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    for frame in by_keyframes.frames:
        assert near(frame.pixels, every[frame.index], 0)


@pytest.mark.parametrize("gop", [12, 1000])
@pytest.mark.parametrize("wanted", [1, 3, 16])
def test_frames_are_spread_over_the_whole_video(read, tmp_path, gop, wanted):
    decoded = read(media.clip(tmp_path / "a.mp4", count=480, gop=gop), max_frames=wanted)
    assert len(decoded.frames) == wanted
    ends = [0.0, *(frame.time_s for frame in decoded.frames), 20.0]
    assert max(np.diff(ends)) <= 2.5 * 20 / (wanted + 1)
    assert near(shades(decoded), [16 + frame.index * 2 % 220 for frame in decoded.frames], 8)


def test_keyframes_in_one_corner_of_a_video_do_not_stand_for_all_of_it(read, tmp_path):
    def bursts():
        rng = np.random.default_rng(0)
        for number in range(400):  # a new scene, and so a keyframe, at every of the first frames
            scene = rng.integers(0, 256, (96, 128, 3), np.uint8) if number < 40 else np.full((96, 128, 3), 90, np.uint8)
            yield scene

    path = media.clip(
        tmp_path / "a.mkv", bursts(), gop=1000, options={"preset": "veryfast", "crf": "20", "sc_threshold": "100"}
    )
    decoded = read(path, max_frames=8)
    assert len(decoded.frames) == 8
    assert decoded.frames[-1].index > 300


def test_a_video_with_fewer_frames_than_wanted_gives_all(read, tmp_path):
    decoded = read(media.clip(tmp_path / "a.mp4", count=5))
    assert [frame.index for frame in decoded.frames] == [0, 1, 2, 3, 4]


def test_times_begin_at_zero_where_the_container_s_do_not(read, tmp_path):
    decoded = read(media.clip(tmp_path / "a.ts", count=4))  # a transport stream starts at 1.4 s
    assert decoded.frames[0].time_s == 0.0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_videos_stand_upright(read, tmp_path, turns, mirrored):
    shown = media.quarters(128, 96) if turns % 2 == 0 else media.quarters(96, 128)
    stored = np.rot90(shown[:, ::-1] if mirrored else shown, turns)
    path = media.clip(tmp_path / "a.mp4", iter([np.ascontiguousarray(stored)] * 4), pixel_format="yuv444p")
    decoded = read(media.turned(path, turns, mirrored=mirrored))
    assert decoded.frames[0].pixels.shape == shown.shape
    assert (decoded.width, decoded.height) == shown.shape[1::-1]
    assert near(media.corners(decoded.frames[0].pixels), media.CORNERS, 12)


@pytest.mark.parametrize("size", [(128, 96), (1280, 720)])
@pytest.mark.parametrize(("space", "matrix"), [("bt709", "709"), ("smpte170m", "601"), (None, "by size")])
def test_colours_follow_the_tags_and_without_tags_the_size(read, tmp_path, size, space, matrix):
    tag = {} if space is None else {"x264-params": f"colormatrix={space}"}
    is_709 = matrix == "709" or (matrix == "by size" and size[1] >= 720)
    patch = np.full((size[1], size[0], 3), (200, 60, 40), np.uint8)
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=24, options={"preset": "ultrafast", "crf": "1", **tag})
        (stream.width, stream.height), stream.pix_fmt = size, "yuv444p"
        frame = av.VideoFrame.from_ndarray(patch, format="rgb24").reformat(
            format="yuv444p", dst_colorspace="ITU709" if is_709 else "ITU601", dst_color_range="MPEG"
        )
        frame.colorspace, frame.pts = 2, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert near(read(path).frames[0].pixels[5, 5], (200, 60, 40), 5)


def test_non_square_pixels_are_made_square(read, tmp_path):
    path = tmp_path / "a.mkv"
    media.clip(path, count=4, options={"x264-params": "sar=4/3", "preset": "ultrafast"})
    decoded = read(path)
    assert (decoded.width, decoded.height) == (171, 96)
    assert decoded.frames[0].pixels.shape == (96, 171, 3)


def test_frames_that_do_not_fit_are_shrunk_and_that_is_said(prison, tmp_path):
    path = media.clip(tmp_path / "a.mp4", size=(640, 480))
    small = Settings(max_decoded_bytes=16 * 320 * 240 * 3)
    decoded = decode(path, jail=prison, settings=small)
    assert decoded.frames[0].pixels.shape == (240, 320, 3)
    assert (decoded.width, decoded.height) == (640, 480)
    assert "shrunk from 640x480 to 320x240" in decoded.warnings[0]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_damaged_tail_costs_its_frames_only(read, tmp_path, name):
    path = media.clip(tmp_path / name, count=96, gop=12, size=(320, 240))
    if name == "a.mp4":  # the index in front, as web servers want it
        with (
            av.open(str(path)) as file,
            av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "faststart"}) as out,
        ):
            track = out.add_stream_from_template(file.streams.video[0])
            for packet in file.demux(video=0):
                if packet.dts is not None:
                    packet.stream = track
                    out.mux(packet)
        path = tmp_path / "b.mp4"
    data = path.read_bytes()
    decoded = read(data[: len(data) * 2 // 3])
    assert len(decoded.frames) >= 1
    assert near(shades(decoded), [16 + 2 * frame.index for frame in decoded.frames], 8)


def test_noise_in_the_middle_leaves_the_sound_frames(read, tmp_path):
    data = bytearray(media.clip(tmp_path / "a.mkv", count=96, gop=6, size=(320, 240)).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4000] = os.urandom(4000)
    decoded = read(bytes(data))
    assert len(decoded.frames) >= 4


def test_a_video_that_is_too_long_or_has_too_many_streams_is_refused(read, tmp_path):
    path = media.clip(tmp_path / "a.mp4", count=48)
    with pytest.raises(TooLong, match="longer than 1 s"):
        read(path, max_video_duration_s=1.0)
    with av.open(str(tmp_path / "b.mkv"), "w") as file:
        streams = [file.add_stream("mpeg4", rate=24) for _ in range(4)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for stream in streams:
            file.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
            file.mux(stream.encode(None))
    assert len(read(tmp_path / "b.mkv").frames) == 1
    with pytest.raises(TooLong, match="4 streams; the limit is 3"):
        read(tmp_path / "b.mkv", max_streams=3)


def test_sound_alone_and_a_track_without_frames_are_no_video(read, tmp_path):
    with pytest.raises(NoVideo, match="no video track"):
        read(media.sound(tmp_path / "a.mkv"))
    with pytest.raises(NoVideo, match="no video track"):
        read(media.sound(tmp_path / "a.mp4"))
    for name in ("b.mkv", "b.mp4", "b.mov"):
        with av.open(str(tmp_path / name), "w") as file:
            stream = file.add_stream("mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            file.start_encoding()
        with pytest.raises(NoVideo):
            read(tmp_path / name)


def test_a_cover_picture_is_not_a_video_track(read, tmp_path):
    path = media.covered(media.sound(tmp_path / "a.mp4"))
    with av.open(str(path)) as file:
        assert len(file.streams.video) == 1  # the cover
    with pytest.raises(NoVideo, match="no video track"):
        read(path)


def test_a_codec_that_is_not_on_the_list_is_named(read, tmp_path):
    with pytest.raises(UnsupportedMedia, match="ffv1"):
        read(media.clip(tmp_path / "a.mkv", count=2, codec="ffv1"))


# ---------------------------------------------------------------- files and answers


def test_files_that_are_not_there_or_not_files(read, tmp_path):
    with pytest.raises(Gone):
        read(tmp_path / "nothing")
    with pytest.raises(BadSource, match="not a regular file"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadSource):
        read(tmp_path / "pipe")
    with pytest.raises(BadSource):
        read(Path("/dev/zero"))


def test_a_file_beyond_the_limit_is_not_opened_by_a_decoder(read, tmp_path):
    with pytest.raises(TooLarge, match=r"the limit is 0\.001 MB"):
        read(media.picture("bmp"), max_image_bytes=1000)
    with pytest.raises(TooLarge):
        read(media.clip(tmp_path / "a.mp4"), max_video_bytes=1000)


@pytest.mark.parametrize(
    "frame",
    [
        {"offset": 10_000_000},
        {"offset": -1},
        {"width": 10_000},
        {"height": -3},
        {"width": 0},
        {"time_s": "soon"},
        {"time_s": float("nan")},
        {"index": -1},
        {"more": 1},
        {"sheet": {"duration_s": float("inf")}},
        {"sheet": {"width": 10**9}},
        {"sheet": {"warnings": ["w" * 1_001]}},
    ],
)
def test_a_decoder_that_lies_about_its_frames_is_not_believed(frame, tmp_path):
    """`more`: the same pixels told of again, as often as one likes, would be looked at as often."""
    honest = {"index": 0, "time_s": None, "width": 10, "height": 10, "offset": 0}
    more, sheet = [honest] * frame.pop("more", 0), frame.pop("sheet", {})
    answer = {"kind": "image", "width": 10, "height": 10, "frames": [honest | frame, *more], **sheet}
    path = tmp_path / "a.png"
    path.write_bytes(media.picture("png"))

    class Liar:
        def run(self, *_, **__):
            return answer, memoryview(bytearray(300))

    with pytest.raises(DecoderFailed, match="makes no sense"):
        decode(path, jail=Liar(), settings=SETTINGS)


def test_no_codec_library_is_imported_on_this_side():
    source = Path(decode_module.__file__).read_text()
    assert "PIL" not in source
    assert "import av" not in source
    assert Frame.__dataclass_params__.frozen


def test_a_broken_picture_says_what_to_do(read):
    with pytest.raises(BrokenMedia, match="get another copy"):
        read(media.picture("jpeg")[:300])
    with pytest.raises(BrokenMedia, match="starts like a webp"):
        read(b"RIFF\x20\0\0\0WEBP" + b"no chunks" * 20)
    with pytest.raises(BrokenMedia, match="cannot be read"):
        read(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + b"x" * 400)


def test_real_videos_of_odd_codecs_and_ranges(read):
    for path in sorted((DATA / "video").glob("*")):
        decoded = read(path)
        assert len(decoded.frames) == min(16, decoded.frame_count), path.name
        assert decoded.warnings == (), path.name
        assert decoded.frames[-1].time_s > 0.5 * decoded.duration_s, path.name


def test_real_photos_match_a_plain_decode(read):
    for path in sorted((DATA / "faces" / "fellows").glob("*.jpg"))[:5]:
        decoded = read(path)
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if not image.info.get("icc_profile"):
                assert np.array_equal(decoded.frames[0].pixels, np.asarray(image.convert("RGB"))), path.name
