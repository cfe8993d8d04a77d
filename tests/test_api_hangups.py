"""Clients that stall, trickle or hang up, and a disk that is full: each costs its own request, and is told apart."""

import asyncio
import contextlib
import logging
import resource

import pytest
from test_api import JPEG, form

from api import bodies, scans, uploads
from scanner.fetching import pace

FORM = (
    b"POST /v1/scans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    b"Content-Length: 100000\r\n\r\n--b\r\n"
)
FILE = b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
BODY = b"POST /v1/scans HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"


@contextlib.asynccontextmanager
async def sending(api, data):
    """A connection over which so much was sent, and then nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(data)
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("sent", [BODY, FORM, FORM + FILE, FORM + FILE + JPEG], ids=["json", "form", "head", "file"])
def test_a_body_that_stands_still_is_cut_off_and_leaves_nothing(serve, tmp_path, monkeypatch, sent):
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    monkeypatch.setattr(pace, "WINDOW_S", 0.2)
    monkeypatch.setattr(uploads, "BODY_S", 0.2)

    async def test(api):
        async with sending(api, sent) as reader, asyncio.timeout(30):
            answer = await reader.readuntil(b"}}")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"body_too_slow"' in answer
        assert list((tmp_path / "spool").glob("*")) == []

    serve(test)


def test_a_read_that_is_cut_off_at_the_end_of_a_window_loses_no_byte():
    class Halves:
        """As aiohttp's reader of parts: what it has is in its hands until it has enough."""

        def __init__(self):
            self.pieces = asyncio.Queue()

        async def read_chunk(self, _size):
            return await self.pieces.get() + await self.pieces.get()

    async def test():
        part = Halves()

        class Impatient:
            async def read(self, read):
                part.pieces.put_nowait(b"first ")
                asking = asyncio.ensure_future(read())
                await until(part.pieces.empty)
                asking.cancel()
                part.pieces.put_nowait(b"second")
                return await read()

        assert await uploads._next(part, Impatient()) == b"first second"

    asyncio.run(test())


def test_who_hangs_up_is_no_failure_of_redis(serve, caplog):
    async def test(api):
        with caplog.at_level(logging.INFO, "api"):
            for sent in (BODY, FORM + FILE + JPEG):
                caplog.clear()
                async with sending(api, sent):
                    pass
                await until(lambda: "status=499" in caplog.text)
                assert "ledger is away" not in caplog.text
                assert not [record for record in caplog.records if record.levelno > logging.INFO]

    serve(test)


def test_a_full_disk_is_said_in_words_and_is_no_bug(serve, tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def test(api):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # EFBIG; a full disk's ENOSPC is taken alike
        try:
            status, answer, headers = await api.ask("POST", "/v1/scans", data=form(JPEG * 100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (status, answer["error"]["code"], answer["error"]["retryable"]) == (503, "unavailable", True)
        assert "no room" in answer["error"]["message"]
        assert int(headers["Retry-After"]) > 0
        assert "by a bug" not in caplog.text
        assert list((tmp_path / "spool").glob("*")) == []

    serve(test)


def test_an_event_stream_that_nobody_reads_any_more_ends_before_its_scan(serve, monkeypatch, caplog):
    monkeypatch.setattr(scans, "BEAT_S", 0.05)

    async def test(api):
        id_ = await api.submit()
        ask = f"GET /v1/scans/{id_}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        async with sending(api, ask) as reader:
            await reader.readuntil(b'"queued"')
            assert api.service.ledger._changes._waiting
        await until(lambda: not api.service.ledger._changes._waiting)
        assert "exception" not in caplog.text

    serve(test)
