"""Video pages by yt-dlp: the child reaches nothing but its proxy, takes one video, and is dead afterwards.

Each child costs about a second of one core, so the many spellings of an address are tried at the proxy (test_proxy.py),
and here each way that a page can lead somewhere is tried once.
"""

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yt_dlp
from origin import ORIGIN_HOST, Canary, Origin, video

from scanner import errors
from scanner.fetching import extractor, pace, page
from scanner.fetching.fetch import fetch
from scanner.settings import Settings

MP4 = video()
ROOT = Path(__file__).parent.parent


@pytest.fixture
def origin():
    serving = Origin()
    yield serving
    serving.close()


@pytest.fixture
def canary():
    listening = Canary()
    yield listening
    listening.close()


@pytest.fixture
def without_namespace(monkeypatch):
    """A kernel that forbids namespaces: only the proxy option holds the child."""
    launch = page._LAUNCH.replace("main()", "extractor._leave_network = lambda: None; extractor.main()")
    also = "import main; from scanner.fetching import extractor"
    monkeypatch.setattr(page, "_LAUNCH", launch.replace("import main", also))
    monkeypatch.setattr(page, "refuse_without_walls", lambda *_: None)


def take(sources, folder, **settings):
    """Fetch several pages side by side (a child each); their answers or errors."""
    chosen = Settings(**{"allow_networks": (f"{ORIGIN_HOST}/32",), **settings})

    cores = asyncio.Semaphore(2)

    async def one(source, place):
        async with cores:
            return await fetch(source, folder=place, settings=chosen)

    async def all_of_them():
        works = []
        for number, source in enumerate(sources):
            (folder / str(number)).mkdir(exist_ok=True)
            works.append(one(source, folder / str(number)))
        return await asyncio.gather(*works, return_exceptions=True)

    return asyncio.run(all_of_them())


def html(body, head=""):
    return f"<!doctype html><html><head><title>A page</title>{head}</head><body>{body}</body></html>".encode()


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def children():
    """Processes of ours that are still there."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[1] == str(os.getpid()) and fields[0] != "Z":
            found.append(status.parent.name)
    return found


# ---------------------------------------------------------------- the good way


def test_the_video_of_an_allowed_page_is_taken(origin, tmp_path):
    origin.answer("/v.mp4", MP4, Content_Type="video/mp4")
    ts = video("mpegts", frames=20)
    origin.answer("/seg0.ts", ts, Content_Type="video/mp2t")
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nseg0.ts\n#EXT-X-ENDLIST\n"
    video_page = origin.answer("/page", html('<video src="/v.mp4"></video>'), Content_Type="text/html")
    hls = origin.answer("/list.m3u8", playlist, Content_Type="application/vnd.apple.mpegurl")
    answers = take([video_page, hls + "#__youtubedl_smuggle=%7B%22x%22%3A1%7D"], tmp_path)
    for answer, source, expected in zip(answers, (video_page, hls), (MP4, ts), strict=True):
        assert answer.path.read_bytes() == expected
        assert (answer.via, answer.url, answer.size_bytes) == ("page", source, len(expected))
        assert answer.sha256 == hashlib.sha256(expected).hexdigest()
    assert leftovers(tmp_path) == [answer.path for answer in answers]
    assert children() == []


# ---------------------------------------------------------------- where a page may lead


def hostile_pages(origin, target):
    """One page for each way to lead yt-dlp to `target`."""
    mpd = (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        f'mediaPresentationDuration="PT4S"><BaseURL>{target}</BaseURL><Period>'
        "<AdaptationSet mimeType='video/mp4'><Representation id='1' bandwidth='1'"
        " codecs='avc1.4d401e' width='64' height='64'><SegmentTemplate media='$Number$.m4s' initialization='i.mp4'"
        " duration='2' startNumber='1'/></Representation></AdaptationSet></Period></MPD>"
    ).encode()
    vod = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n{key}#EXTINF:2,\n{segment}\n#EXT-X-ENDLIST\n"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{target}key"\n'
    variants = "#EXTM3U\n" + "".join(f"#EXT-X-STREAM-INF:BANDWIDTH={n}\n{target}{n}.m3u8\n" for n in range(1, 40))
    origin.answer("/seg.ts", b"x" * 376)
    pages = {
        "video": html(f'<video src="{target}v.mp4"></video>'),
        "og": html("", f'<meta property="og:video" content="{target}v.mp4">'),
        "iframe": html(
            f'<iframe src="https://www.youtube.com/embed/../../x"></iframe><iframe src="{target}"></iframe>'
        ),
        "refresh": html("", f'<meta http-equiv="refresh" content="0; url={target}">'),
        "segment": vod.format(key="", segment=f"{target}0.ts").encode(),
        "key": vod.format(key=key, segment="/seg.ts").encode(),
        "master": variants.encode(),
        "dash": mpd,
    }
    urls = [origin.answer(f"/{name}", body) for name, body in pages.items()]

    async def cloaked(writer, headers):
        """A page for us, a redirect for yt-dlp."""
        to_us = "laescan" in headers["user-agent"]
        answer = b"200 OK\r\n\r\n" + html("") if to_us else f"302 Found\r\nLocation: {target}\r\n\r\n".encode()
        writer.write(b"HTTP/1.1 " + answer)

    origin.routes["/cloaked"] = cloaked
    return [*urls, origin.url("/cloaked")]


def test_no_page_reaches_a_canary_even_without_a_namespace(origin, canary, tmp_path, monkeypatch, without_namespace):
    for name, value in {"no_proxy": "*", "NO_PROXY": "*", "http_proxy": f"http://127.0.0.1:{canary.port}"}.items():
        monkeypatch.setenv(name, value)
    pages = hostile_pages(origin, f"http://127.0.0.1:{canary.port}/")
    answers = take(pages, tmp_path, allow_ports=(80, 443, canary.port))
    assert canary.count() == 0
    codes = {
        page.rpartition("/")[2]: getattr(answer, "code", answer) for page, answer in zip(pages, answers, strict=True)
    }
    led = {name for name, code in codes.items() if code == "blocked_address"}
    assert {"video", "og", "segment", "key", "master", "dash", "cloaked"} <= led, codes
    assert set(codes.values()) <= {"blocked_address", "no_media"}
    assert leftovers(tmp_path) == []


PROBE = """
import json, socket, sys
from scanner.fetching import extractor
listener = extractor._leave_network()
reached = []
for host in ("127.0.0.1", "127.0.0.5", "::1", "0.0.0.0"):
    try:
        socket.create_connection((host, int(sys.argv[1])), timeout=2).close()
        reached.append(host)
    except OSError:
        pass
print(json.dumps([listener is not None, reached]))
"""


def test_inside_the_namespace_there_is_no_route_at_all(canary):
    done = subprocess.run([sys.executable, "-c", PROBE, str(canary.port)], cwd=ROOT, capture_output=True, check=True)
    isolated, reached = json.loads(done.stdout)
    if isolated:  # where the kernel forbids it, the test above is what holds
        assert reached == []
        assert canary.count() == 0


def test_the_child_gets_no_environment_and_finds_no_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    program = "import json, os, shutil; print(json.dumps([dict(os.environ), shutil.which('sh')]))"
    monkeypatch.setattr(page, "_LAUNCH", program)

    ours, theirs = socket.socketpair()

    async def run():
        child = await page._start(tmp_path, theirs)
        return (await child.communicate())[0]

    with ours, theirs:
        environment, shell = json.loads(asyncio.run(run()))
    assert set(environment) <= {"PATH", "HOME", "TMPDIR", "LC_ALL", "YTDLP_NO_PLUGINS", "LC_CTYPE"}
    assert shell is None


# ---------------------------------------------------------------- what a page may not be


def test_pages_without_a_video_that_we_can_take_say_so(origin, tmp_path):
    form = html('<form action="/in"><input name="user"><input type="password" name="word"></form>')
    live = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2,\nseg.ts\n"
    endless = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n" + b"#EXTINF:9,\nseg.ts\n" * 300 + b"#EXT-X-ENDLIST\n"
    big = html('<video src="/big.mp4"></video>')
    origin.raw("/big.mp4", "200 OK", "Content-Length: 900000", "Content-Type: video/mp4", body=MP4)
    sources = [
        origin.answer("/login", form, Content_Type="text/html"),
        origin.answer("/live.m3u8", live, Content_Type="application/vnd.apple.mpegurl"),
        origin.answer("/long.m3u8", endless, Content_Type="application/vnd.apple.mpegurl"),
        origin.answer("/big", big, Content_Type="text/html"),
        origin.answer("/gone", html('<video src="/nothing.mp4"></video>'), Content_Type="text/html"),
    ]
    answers = take(sources, tmp_path, max_video_bytes=100_000)
    assert [type(answer) for answer in answers] == [
        errors.NoMedia, errors.LiveStream, errors.TooLong, errors.TooLarge, errors.Gone,
    ]  # fmt: skip
    assert all("save the picture or video and scan the file" in str(answers[n]) for n in (0, 4))
    assert "login" in str(answers[0])
    assert leftovers(tmp_path) == []
    assert children() == []


def test_budgets_and_clocks_end_a_page(origin, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "WINDOW_S", 3.0)
    many = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n" + b"#EXTINF:2,\nseg.ts\n" * 80 + b"#EXT-X-ENDLIST\n"
    origin.answer("/seg.ts", b"x" * 20_000)

    async def endless(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n" + MP4)
        while True:
            writer.write(b"\0" * 65_536)
            await writer.drain()

    async def trickle(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\r\n" + MP4)
        while True:
            await asyncio.sleep(0.1)
            writer.write(b"\0")
            await writer.drain()

    origin.routes.update({"/endless.mp4": endless, "/trickle.mp4": trickle})
    sources = [
        origin.answer("/many.m3u8", many, Content_Type="application/vnd.apple.mpegurl"),
        origin.answer("/endless", html('<video src="/endless.mp4"></video>'), Content_Type="text/html"),
        origin.answer("/trickle", html('<video src="/trickle.mp4"></video>'), Content_Type="text/html"),
    ]
    answers = take(sources, tmp_path, max_connections=20, max_video_bytes=1_000_000)
    assert [type(answer) for answer in answers] == [errors.TooLarge, errors.TooLarge, errors.TimedOut]
    assert "20 connections" in str(answers[0])
    assert len([path for path, _ in origin.requests if path == "/seg.ts"]) <= 20
    assert leftovers(tmp_path) == []
    assert children() == []


@pytest.mark.parametrize("how", ["deadline", "cancel", "death"])
def test_the_child_is_dead_and_the_folder_empty_whatever_ends_it(origin, tmp_path, monkeypatch, how):
    program = {"death": "import os; os._exit(3)"}.get(how, "import time; time.sleep(600)")
    monkeypatch.setattr(page, "_LAUNCH", program)
    url = origin.answer("/page", html(""))

    time_of = {"deadline": {"video_timeout_s": 0.7}}.get(how, {})  # the others' child must have begun

    async def run():
        settings = Settings(allow_networks=(f"{ORIGIN_HOST}/32",), **time_of)
        task = asyncio.create_task(fetch(url, folder=tmp_path, settings=settings))
        if how == "cancel":
            while not children():
                assert not task.done()
                await asyncio.sleep(0.01)
            task.cancel()
        return (await asyncio.gather(task, return_exceptions=True))[0]

    expected = {"deadline": errors.TimedOut, "cancel": asyncio.CancelledError, "death": errors.NoMedia}
    assert type(asyncio.run(run())) is expected[how]
    assert list(tmp_path.iterdir()) == []
    assert children() == []


# ---------------------------------------------------------------- yt-dlp's options and words


def test_the_options_are_frozen():
    """Half of yt-dlp's advisories are about an option; a change here needs a look at them."""
    job = {"proxy": "p", "user_agent": "", "socket_timeout_s": 1, "folder": "/f", "max_bytes": 9}
    chosen = extractor.options(job, print, print, None)
    assert chosen["proxy"] == "p"
    off = ("enable_file_urls", "cachedir", "continuedl", "usenetrc", "allow_unplayable_formats", "writelink",
           "nocheckcertificate", "writeinfojson", "writethumbnail", "writesubtitles", "writeautomaticsub")  # fmt: skip
    assert all(chosen[name] is False for name in off)
    assert all(chosen[name] is None for name in ("cookiefile", "cookiesfrombrowser", "netrc_cmd"))
    assert all(not chosen[name] for name in ("postprocessors", "js_runtimes", "remote_components"))
    assert chosen["external_downloader"] == {"default": "native"}
    assert (chosen["fixup"], chosen["noplaylist"], chosen["playlist_items"]) == ("never", True, "1")
    assert (chosen["max_filesize"], chosen["retries"], chosen["fragment_retries"]) == (9, 2, 2)
    assert not {"exec_cmd", "username", "password", "source_address", "impersonate", "download_ranges"} & set(chosen)
    assert not shutil.which("ffmpeg", path=chosen["ffmpeg_location"])


def test_yt_dlp_is_new_enough():
    assert tuple(map(int, yt_dlp.version.__version__.split(".")[:3])) >= (2026, 7, 4)  # CVE-2026-55404


BIG, SMALL, SMALL_VP9 = (1080, "avc1.64", "none"), (480, "avc1.4d", "none"), (480, "vp9", "none")
WITH_SOUND, SOUND = (360, "avc1.4d", "mp4a"), (None, "none", "mp4a")
MIDDLE, AV1 = (720, "avc1.4d", "none"), (720, "av01", "none")


@pytest.mark.parametrize(
    ("heights", "chosen"),
    [
        ({"big": BIG, "small": SMALL, "sounding": WITH_SOUND, "vp9": SMALL_VP9}, "small"),
        ({"big": BIG, "sounding": WITH_SOUND, "vp9": SMALL_VP9}, "sounding"),
        ({"big": BIG, "vp9": SMALL_VP9, "sound": SOUND}, "vp9"),
        ({"big": BIG, "middle": MIDDLE, "av1": AV1}, "middle"),
        ({"unknown": (None, None, None)}, "unknown"),
    ],
)
def test_the_format_is_small_h264_without_sound_if_there_is_one(heights, chosen):
    formats = [
        {"format_id": name, "url": "http://x.test/", "ext": "mp4", "height": height, "vcodec": vcodec, "acodec": acodec}
        for name, (height, vcodec, acodec) in heights.items()
    ]
    info = {"id": "x", "title": "x", "extractor": "x", "webpage_url": "http://x.test", "formats": formats}
    with yt_dlp.YoutubeDL(
        {"format": extractor.FORMAT, "quiet": True, "simulate": True, "cachedir": False}
    ) as downloader:
        assert downloader.process_ie_result(info, download=False)["format_id"] == chosen


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("ERROR: [x] 1: This live event will begin in 3 hours.", "live_stream"),
        ("ERROR: [x] 1: Private video. Sign in if you've been granted access", "forbidden"),
        ("ERROR: [x] 1: Sign in to confirm you're not a bot. Use --cookies", "forbidden"),
        ("ERROR: [x] 1: The uploader has not made this video available in your country", "forbidden"),
        ("ERROR: [x] 1: Video unavailable. This video has been removed by the uploader", "gone"),
        ("ERROR: unable to write data: [Errno 27] File too large", "too_large"),
        ("ERROR: This format is DRM protected", "no_media"),
        ("ERROR: Requested format is not available", "no_media"),
        ("", "no_media"),
    ],
)
def test_the_words_of_yt_dlp_become_codes(words, code):
    found, message = extractor.explain(yt_dlp.utils.DownloadError(words))
    assert found == code
    assert found in errors.by_code()
    assert "scan the file" in message


def test_every_code_of_the_child_is_one_of_ours():
    assert {code for _, code, _ in extractor._WORDS} <= set(errors.by_code())
