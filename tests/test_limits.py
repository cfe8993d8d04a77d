"""Every limit of the house at the limit, one past it and far past it: a verdict, or the documented code.

The medium stays and the limit moves, so "at" is the limit that just lets it in. Times are tried on a clock that only
moves when everybody waits, so that the last moment that is in time is tried, too.
"""

import asyncio
import contextlib
import gzip
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import av
import media
import models
import numpy as np
import pytest
import torch
from aiohttp.base_protocol import BaseProtocol
from origin import ALLOWED, Origin, fails, jpeg, take, video
from PIL import Image
from service import URL, served

from scanner import errors
from scanner.bulk.dispatch import host_of
from scanner.cache.validators import NO_VALIDATORS
from scanner.contract import Label, ModelInfo
from scanner.detection.faces import FaceDetector
from scanner.fetching import extractor, pace
from scanner.fetching.egress import AddressPolicy
from scanner.fetching.fetch import _Asking, _download, _pieces, parse_url
from scanner.fetching.proxy import Budget, FilteringProxy
from scanner.formats import ALLOWED as FORMATS
from scanner.pipeline import Scanner
from scanner.settings import Settings, SettingsError

FACES = sorted((Path(__file__).parent / "media").glob("fellow_*.jpg"))
ODD = (37, 83)  # 3,071 pixels: a limit that is halved somewhere shows


class Blind:
    """A model that sees no faces: limits are met before it is asked, or after."""

    info = ModelInfo(model_id="m", backend="b", precision="p")
    calibration = models.SURELY_AUTHENTIC

    async def look(self, frames, **_):
        return [[] for _ in frames]

    async def survey(self, _picture, **_):
        return None


# ---------------------------------------------------------------- media


def streams(path, count):
    with av.open(str(path), "w") as file:
        for _ in range(count):
            stream = file.add_stream("mpeg4", rate=24)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for stream in file.streams:
            file.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
            file.mux(stream.encode(None))
    return path.read_bytes()


def rows():
    """Name, bytes, the setting, its value that just lets the bytes in, one step, and the code."""
    shown = Image.fromarray(media.quarters(*ODD))
    with tempfile.TemporaryDirectory() as folder:
        made = {name: media.clip(Path(folder) / name, count=25, size=(64, 48)) for name in ("a.mp4", "a.mkv", "a.ts")}
        clips = {name: path.read_bytes() for name, path in made.items()}
        three = streams(Path(folder) / "three.mkv", 3)
    for name in ("jpeg", "png", "webp", "gif", "avif", "bmp", "heic"):
        data = media.picture(name, shown)
        yield f"pixels of a {name}", data, "max_image_pixels", ODD[0] * ODD[1], 1, "too_many_pixels"
        yield f"bytes of a {name}", data, "max_image_bytes", len(data), 1, "too_large"
    for name in ("gif", "png", "webp", "avif"):
        data = media.animation(name, 3, size=ODD)
        yield f"pixels of an animated {name}", data, "max_image_pixels", ODD[0] * ODD[1], 1, "too_many_pixels"
    for name, data in clips.items():
        yield f"bytes of {name}", data, "max_video_bytes", len(data), 1, "too_large"
        yield f"pixels of {name}", data, "max_image_pixels", 64 * 48, 1, "too_many_pixels"
        yield f"seconds of {name}", data, "max_video_duration_s", 1.0, 0.001, "too_long"  # first frame to last
    yield "streams", three, "max_streams", 3, 1, "too_long"


ROWS = {name: row for name, *row in rows()}


@pytest.fixture(scope="module")
def scanner():
    with Scanner(Settings(), model=Blind()) as opened:
        yield opened


def code_of(scanner, path, **settings):
    scanner.settings = Settings(**settings)
    outcome = scanner.scan_blocking(str(path)).outcome
    return outcome.failure.code if outcome.failure else str(outcome.verdict.label)


@pytest.mark.parametrize("name", ROWS)
def test_a_medium_at_its_limit_is_judged_and_past_it_has_its_code(scanner, tmp_path, name):
    data, setting, limit, step, code = ROWS[name]
    path = tmp_path / "medium"
    path.write_bytes(data)
    found = [code_of(scanner, path, **{setting: value}) for value in (limit, limit - step, max(1, limit // 20) if
             isinstance(limit, int) else limit / 20)]  # fmt: skip
    assert found == [Label.NO_FACE, code, code]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.mp4", "a.mkv"])
def test_frames_are_sampled_up_to_the_limit_and_the_verdict_counts_all(scanner, tmp_path, name):
    path, at = tmp_path / name, {}
    for count in (5, 6, 60):
        if name in {"a.mp4", "a.mkv"}:
            media.clip(path, count=count, size=(64, 48), gop=1)
        else:
            path.write_bytes(media.animation(path.suffix[1:], count))
        scanner.settings = Settings(max_frames=5)
        verdict = scanner.scan_blocking(str(path)).outcome.verdict
        at[count] = (len(verdict.frames), verdict.media.frame_count)
    assert at == {5: (5, 5), 6: (5, 6), 60: (5, 60)}


def test_faces_are_judged_up_to_the_limit_and_the_verdict_says_so(tmp_path):
    crowd = np.hstack([np.asarray(Image.open(path).convert("RGB").resize((200, 200))) for path in FACES[:3]])
    path = tmp_path / "crowd.png"
    path.write_bytes(media.picture("png", Image.fromarray(crowd)))
    found = FaceDetector().detect([crowd])[0]
    assert len(found) == 3
    threads = torch.get_num_threads()
    with Scanner(Settings(weights=str(models.random_checkpoint(tmp_path)), threads=1)) as scanner:
        for most, is_said in ((4, False), (3, True), (1, True)):
            scanner.settings = scanner.model._settings = Settings(max_faces=most)
            verdict = scanner.scan_blocking(str(path)).outcome.verdict
            assert len(verdict.faces) == min(most, 3)
            assert [f"{most} largest" in " ".join(verdict.warnings)] == [is_said]
    torch.set_num_threads(threads)


def test_formats_are_those_of_the_list_through_every_door(scanner, tmp_path, origin):
    assert {found.name for found in FORMATS} == {"jpeg", "png", "webp", "gif", "avif", "bmp", "heic", "mp4", "matroska",
                                                 "mpegts"}  # fmt: skip
    path = tmp_path / "medium"
    for name, data in media.NOT_MEDIA.items():
        path.write_bytes(data)
        assert code_of(scanner, path) == "unsupported_media", name
        if not data.startswith(b"<!DOCTYPE html"):  # a web page is yt-dlp's business
            fails(errors.UnsupportedMedia, origin.answer("/x", data), tmp_path / "none")


# ---------------------------------------------------------------- bytes on the wire


@pytest.fixture
def origin(tmp_path):
    (tmp_path / "none").mkdir()
    serving = Origin()
    yield serving
    serving.close()


@pytest.mark.parametrize("door", ["announced", "unannounced", "packed"])
@pytest.mark.parametrize(("setting", "data"), [("max_image_bytes", jpeg(200, 150)), ("max_video_bytes", video())])
def test_bytes_from_the_web_have_the_limit_of_their_kind(origin, tmp_path, door, setting, data):
    url = {
        "announced": lambda: origin.answer("/a", data),
        "unannounced": lambda: origin.raw("/a", "200 OK", body=data),
        "packed": lambda: origin.answer("/a", gzip.compress(data), Content_Encoding="gzip"),
    }[door]()
    others = {"max_image_bytes": 10_000_000, "max_video_bytes": 10_000_000}
    assert take(url, tmp_path, **{**others, setting: len(data)}).size_bytes == len(data)
    (tmp_path / "download").unlink()
    for limit in (len(data) - 1, len(data) // 20):
        fails(errors.TooLarge, url, tmp_path / "none", **{**others, setting: limit})


@pytest.mark.parametrize("hops", [2, 3, 20])
def test_redirects(origin, tmp_path, hops):
    for hop in range(hops):
        origin.redirect(f"/{hop}", f"/{hop + 1}")
    origin.answer(f"/{hops}", jpeg())
    if hops == 2:
        assert take(origin.url("/0"), tmp_path, max_redirects=2).url == origin.url("/2")
    else:
        fails(errors.TooManyRedirects, origin.url("/0"), tmp_path / "none", max_redirects=2)
        assert len(origin.requests) == 3


@pytest.mark.parametrize("letter", ["a", "ü"])
def test_the_length_of_a_url_is_in_bytes(letter):
    url = f"http://{'h' * 40}.test/" + letter * 20
    length = len(url.encode())
    assert parse_url(url, Settings(max_url_bytes=length)).host
    for limit in (length - 1, 10):
        with pytest.raises(errors.BadSource, match=f"longer than {limit} bytes"):
            parse_url(url, Settings(max_url_bytes=limit))
    assert host_of("http://" + "a" * 100_000)  # a list is read before it is refused row by row


# ---------------------------------------------------------------- seconds


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while anybody has something to do."""

    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        select = self._selector.select

        def jump(timeout=None):
            self.now_s += timeout or 0.0
            return select(0)

        self._selector.select = jump

    def time(self):
        return self.now_s


def clocked(pieces, read):
    """What `read` makes of an answer whose pieces come after so many seconds each."""

    async def run():
        loop = asyncio.get_running_loop()
        protocol = BaseProtocol(loop)
        protocol.connection_made(asyncio.Transport())
        content = aiohttp.StreamReader(protocol, 2**30, loop=loop)  # never full: nobody is there to be paused

        async def send():
            for after_s, piece in pieces:
                await asyncio.sleep(after_s)
                content.feed_data(piece)
            content.feed_eof()

        sending = asyncio.create_task(send())
        try:
            return await read(SimpleNamespace(headers={}, content=content, content_length=None, url=URL))
        finally:
            sending.cancel()

    with asyncio.Runner(loop_factory=Clock) as runner:
        return runner.run(run())


def bodied(pieces):
    """The bytes of a body."""

    async def read(response):
        return b"".join([piece async for piece in _pieces(response, Settings())])

    return clocked(pieces, read)


@pytest.mark.parametrize(("after_s", "is_in_time"), [(9.999, True), (10.001, False), (1e6, False)])
def test_the_first_byte(after_s, is_in_time):
    if is_in_time:
        assert bodied([(after_s, b"x")]) == b"x"
        return
    with pytest.raises(TimeoutError):  # which `_download` calls TimedOut
        bodied([(after_s, b"x")])


@pytest.mark.parametrize(
    ("piece_bytes", "is_enough"), [(8_000, True), (7_999, False), (1, False)], ids=["at", "one below", "far below"]
)
def test_the_least_rate(piece_bytes, is_enough):
    """16 kB/s over 10 s, for a minute and a half: twenty pieces in each window."""
    body = [(0, b"x"), (0.25, bytes(piece_bytes)), *((0.5, bytes(piece_bytes)) for _ in range(179))]
    if is_enough:
        assert len(bodied(body)) == 1 + 180 * piece_bytes
        return
    with pytest.raises(errors.TimedOut):
        bodied(body)


def test_a_stall_shorter_than_the_window_is_forgiven_and_a_longer_one_is_not():
    burst = bytes(200_000)
    assert len(bodied([(0, b"x"), (0, burst), (pace.WINDOW_S - 0.01, burst), (0.5, burst)])) == 600_001
    with pytest.raises(errors.TimedOut):
        bodied([(0, b"x"), (0, burst), (2 * pace.WINDOW_S + 0.01, burst)])


@pytest.mark.parametrize(("data", "limit_s"), [(jpeg(), 60), (video(), 300)], ids=["picture", "video"])
def test_a_picture_has_less_time_than_a_video(data, limit_s, tmp_path, monkeypatch):
    async def read(response):
        monkeypatch.setattr("scanner.fetching.fetch._follow", lambda *_: contextlib.nullcontext(response))
        path = tmp_path / "download"
        return await _download(parse_url(URL, Settings()), URL, path, Settings(), None, _Asking(NO_VALIDATORS, None))

    body = [(0, data + bytes(4096)), *((4, bytes(100_000)) for _ in range(limit_s // 4 - 1))]
    assert clocked(body, read).size_bytes == len(data) + 4096 + 100_000 * (limit_s // 4 - 1)
    with pytest.raises(errors.TimedOut):
        clocked([*body, (4.001, b"late")], read)


@pytest.mark.parametrize(("kind", "data"), [("image_timeout_s", jpeg()), ("video_timeout_s", video())])
def test_the_total_time_ends_a_body_that_never_does(origin, tmp_path, kind, data):
    async def for_ever(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + data + bytes(4096))
        while True:
            writer.write(bytes(1000))
            await asyncio.sleep(0.02)

    origin.routes["/a"] = for_ever
    fails(errors.TimedOut, origin.url("/a"), tmp_path / "none", min_rate_bytes_per_s=1, **{kind: 0.5})


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize(("seconds", "code"), [(60, None), (60.5, "too_long"), (1e9, "too_long")])
def test_a_page_says_how_long_its_video_is(seconds, code):
    job = {"max_duration_s": 60.0}
    if code is None:
        extractor.refuse_video({"duration": seconds}, job)
        return
    with pytest.raises(extractor.Refused) as caught:
        extractor.refuse_video({"duration": seconds}, job)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("asked", "answered"), [(3, ["200"] * 3), (4, ["200"] * 3 + ["429"]), (30, ["200"] * 3 + ["429"] * 27)]
)
def test_connections_of_a_page(origin, asked, answered):
    url, budget = origin.answer("/a", b"hello"), Budget(connections=3, bytes=10_000, seconds=60)

    async def status(proxy):
        async with aiohttp.ClientSession() as http, http.get(url, proxy=proxy.url) as answer:
            return str(answer.status)

    async def ask():
        async with FilteringProxy(AddressPolicy(allow_networks=ALLOWED), budget) as proxy:
            return [await status(proxy) for _ in range(asked)]

    assert asyncio.run(ask()) == answered


@pytest.mark.parametrize(("spare", "is_whole"), [(0, True), (-1, False), (-5_000, False)])
def test_bytes_of_a_page(origin, spare, is_whole):
    url = origin.answer("/a", b"x" * 6_000)

    async def ask(budget):
        async with FilteringProxy(AddressPolicy(allow_networks=ALLOWED), budget) as proxy:
            try:
                async with aiohttp.ClientSession() as http, http.get(url, proxy=proxy.url) as answer:
                    return await answer.read() == b"x" * 6_000, proxy.bytes
            except aiohttp.ClientError:
                return False, proxy.bytes

    plenty = Budget(connections=3, bytes=1_000_000, seconds=60)
    _, needed = asyncio.run(ask(plenty))
    assert asyncio.run(ask(replace(plenty, bytes=needed + spare)))[0] is is_whole


# ---------------------------------------------------------------- the API


async def post(api, path, body, **options):
    status, answer, _ = await api.ask(
        "POST", path, data=io.BytesIO(body.encode()), headers={"Content-Type": "application/json"}, **options
    )
    return status if status < 400 else (status, answer["error"]["code"])


def padded(text, size):
    return text + " " * (size - len(text))


def test_what_the_api_takes(redis_url, tmp_path):
    """Each row: a path, the body at the limit, one past it and far past it, and the refusal."""

    def url_of(length):
        return URL + "x" * (length - len(URL))

    def batch(count):
        return '{"urls": [' + ", ".join(f'"{URL}?{n}"' for n in range(count)) + "]}"

    def keys(count):
        return '{"keys": [' + ", ".join(f'"{n:064x}"' for n in range(count)) + "]}"

    one, too_large = f'{{"url": "{URL}"}}', (413, "body_too_large")
    table = {
        "URL": ("/v1/scans", [f'{{"url": "{url_of(n)}"}}' for n in (100, 101, 8_000)], (422, "bad_source")),
        "URL as described": ("/v1/scans", [f'{{"url": "{url_of(n)}"}}' for n in (99, 8_193, 60_000)], (422, "invalid")),
        "body of a scan": ("/v1/scans", [padded(one, n) for n in (64_000, 64_001, 3_000_000)], too_large),
        "batch": ("/v1/batches", [batch(n) for n in (5, 6, 5_000)], (422, "invalid")),
        "batch as described": ("/v1/batches", [batch(1), batch(10_001), batch(30_000)], (422, "invalid")),
        "body of a batch": ("/v1/batches", [padded(batch(1), n) for n in (2_000_000, 2_000_001, 9_000_000)], too_large),
        "keys": ("/v1/verdicts/lookup", [keys(n) for n in (1_000, 1_001, 20_000)], (422, "invalid")),
    }  # fmt: skip

    async def test(api):
        for name, (path, (at, *past), refusal) in table.items():
            assert await post(api, path, at) in {200, 202}, name
            assert [await post(api, path, body) for body in past] == [refusal] * 2, name

    served(redis_url, tmp_path, test, max_url_bytes=100, max_batch_urls=5)


@pytest.mark.parametrize(("setting", "data"), [("max_image_bytes", jpeg(200, 150)), ("max_video_bytes", video())])
def test_uploads(redis_url, tmp_path, setting, data):
    async def upload(api):
        form = aiohttp.FormData()
        form.add_field("file", data, filename="a")
        status, answer, _ = await api.ask("POST", "/v1/scans", data=form)
        return status if status < 400 else (status, answer["error"]["code"])

    for limit, expected in (
        (len(data), 202),
        (len(data) - 1, (413, "too_large")),
        (len(data) // 20, (413, "too_large")),
    ):
        found = []

        async def test(api, found=found):
            found.append(await upload(api))

        served(redis_url, tmp_path, test, **{setting: limit})
        assert found == [expected]
        left = list((tmp_path / "spool").iterdir()) if (tmp_path / "spool").exists() else []
        assert len(left) == 1  # the first one's
    assert not [path for path in left if path.name.startswith("partial-")]


def test_numbers_in_paths_and_queries(redis_url, tmp_path):
    async def test(api):
        id_ = await api.submit()
        await api.ask("DELETE", f"/v1/scans/{id_}")
        _, batch, _ = await api.ask("POST", "/v1/batches", json={"urls": [URL]})
        asked = {
            f"/v1/scans/{id_}?wait=": ("30", "30.1", "1e9"),
            f"/v1/batches/{batch['id']}/results?after=": ("10000", "10001", "9" * 30),
            "/v1/verdicts/prefix/": ("0" * 64, "0" * 65, "0" * 5_000),
            "/v1/verdicts/prefix": ("/0000", "/000", "/0"),
        }
        for path, (at, *past) in asked.items():
            assert (await api.ask("GET", path + at))[0] == 200, path
            for value in past:
                assert (await api.ask("GET", path + value))[0] in {404, 422}, (path, value)

    served(redis_url, tmp_path, test)


def test_a_limit_that_the_description_would_undo_is_no_setting():
    assert Settings.from_env({"LAESCAN_MAX_BATCH_URLS": "10000"}).max_batch_urls == 10_000
    with pytest.raises(SettingsError, match="max_batch_urls"):
        Settings.from_env({"LAESCAN_MAX_BATCH_URLS": "10001"})
