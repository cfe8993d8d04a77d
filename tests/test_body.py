"""Limits while the bytes stream in: too many, packed, lying about their number, too slow; over a real connection."""

import asyncio
import gzip

import pytest
from origin import ALLOWED, Origin, fails, jpeg, take, video

from scanner import errors
from scanner.fetching import pace
from scanner.fetching.fetch import fetch
from scanner.settings import Settings

JPEG = jpeg()
BIG_JPEG = jpeg(640, 480)


@pytest.fixture
def origin():
    serving = Origin()
    yield serving
    serving.close()


# ---------------------------------------------------------------- too much


def endless(start):
    async def handler(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + start)
        while True:
            writer.write(b"\0" * 65_536)
            await writer.drain()

    return handler


def trickle(start, *, pause_s=0.02, piece=b"\0", times=10_000):
    async def handler(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + start)
        for _ in range(times):
            await asyncio.sleep(pause_s)
            writer.write(piece)
            await writer.drain()

    return handler


@pytest.mark.parametrize("start", [JPEG, video()])
def test_an_endless_body_is_cut_at_the_limit_of_its_kind(origin, tmp_path, start):
    origin.routes["/a"] = endless(start)
    fails(errors.TooLarge, origin.url("/a"), tmp_path, max_image_bytes=300_000, max_video_bytes=600_000)


def test_a_declared_length_past_the_limit_is_refused_at_once(origin, tmp_path):
    url = origin.raw("/a", "200 OK", "Content-Length: 10000000000", body=BIG_JPEG)
    fails(errors.TooLarge, url, tmp_path)


@pytest.mark.parametrize("extra", [1, 10**7])
def test_a_body_shorter_than_declared_was_cut(origin, tmp_path, extra):
    url = origin.raw("/a", "200 OK", f"Content-Length: {len(BIG_JPEG) + extra}", body=BIG_JPEG)
    fails(errors.Unreachable, url, tmp_path)


def test_a_body_longer_than_declared_ends_where_it_was_declared(origin, tmp_path):
    url = origin.raw("/a", "200 OK", f"Content-Length: {len(JPEG)}", body=JPEG + b"x" * 100_000)
    try:
        assert take(url, tmp_path).path.read_bytes() == JPEG
    except errors.SourceFailed:  # aiohttp may see the rest in time, and refuse it
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_gzip_bomb_meets_the_limit_unpacked(origin, tmp_path, encoding):
    bomb = gzip.compress(JPEG + bytes(50_000_000))
    assert len(bomb) < 100_000
    fails(errors.TooLarge, origin.answer("/a", bomb, Content_Encoding=encoding), tmp_path, max_image_bytes=1_000_000)


@pytest.mark.parametrize(("encoding", "error"), [("br", errors.UnsupportedMedia), ("gzip", errors.SourceFailed)])
def test_a_packing_that_we_cannot_undo_is_an_error(origin, tmp_path, encoding, error):
    fails(error, origin.answer("/a", JPEG, Content_Encoding=encoding), tmp_path)


async def header_flood(writer, _headers):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1000)
        await writer.drain()


async def one_long_header(writer, _headers):
    writer.write(b"HTTP/1.1 200 OK\r\nX-Flood: ")
    while True:
        writer.write(b"a" * 65_536)
        await writer.drain()


@pytest.mark.parametrize("flood", [header_flood, one_long_header])
def test_a_flood_of_headers_is_refused(origin, tmp_path, flood):
    origin.routes["/a"] = flood
    fails(errors.SourceFailed, origin.url("/a"), tmp_path, first_byte_timeout_s=5)


# ---------------------------------------------------------------- too slow


async def silent(writer, _headers):
    await asyncio.sleep(60)


async def headers_only(writer, _headers):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    await asyncio.sleep(60)


async def slow_headers(writer, _headers):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("handler", [silent, headers_only, slow_headers])
def test_the_first_byte_has_its_time(origin, tmp_path, handler):
    origin.routes["/a"] = handler
    fails(errors.TimedOut, origin.url("/a"), tmp_path, first_byte_timeout_s=0.2, connect_timeout_s=0.2)


@pytest.mark.parametrize("start", [b"", JPEG])
def test_a_byte_now_and_then_is_too_slow(origin, tmp_path, start, monkeypatch):
    monkeypatch.setattr(pace, "WINDOW_S", 0.3)
    origin.routes["/a"] = trickle(start or b"\xff\xd8\xff")
    fails(errors.TimedOut, origin.url("/a"), tmp_path)


def test_a_stall_after_a_good_start_is_too_slow(origin, tmp_path, monkeypatch):
    monkeypatch.setattr(pace, "WINDOW_S", 0.2)
    origin.routes["/a"] = trickle(BIG_JPEG, pause_s=60)
    fails(errors.TimedOut, origin.url("/a"), tmp_path)


def test_a_cancelled_fetch_leaves_nothing(origin, tmp_path):
    origin.routes["/a"] = trickle(BIG_JPEG)

    async def cancel():
        began = asyncio.Event()
        task = asyncio.create_task(
            fetch(
                origin.url("/a"),
                folder=tmp_path,
                settings=Settings(allow_networks=ALLOWED),
                progress=lambda *_: began.set(),
            )
        )
        await began.wait()
        assert list(tmp_path.iterdir()) != []
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    asyncio.run(cancel())
    assert list(tmp_path.iterdir()) == []
