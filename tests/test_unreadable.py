"""Lines that are too long, and bytes that are no HTTP: refused, and quoted in no log."""

import asyncio
import logging

import pytest
from service import URL, served

from api.unreadable import LINE_BYTES, is_news

SECRET = "token-in-a-query"


@pytest.mark.parametrize(("length", "status"), [(8_100, 200), (9_000, 422), (30_000, 422)])
def test_a_long_url_is_looked_up_or_refused_as_everything_else(redis_url, tmp_path, length, status):
    async def test(api):
        found, body, _ = await api.ask("GET", f"/v1/verdicts?url={URL}?{'a' * (length - len(URL) - 1)}")
        assert (found, status == 200 or body["error"]["code"]) == (status, status == 200 or "invalid")

    served(redis_url, tmp_path, test)


@pytest.mark.parametrize(
    "sent",
    [
        f"GET /v1/verdicts?url=https://e.org/?{SECRET}{'a' * LINE_BYTES} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        f"{SECRET}\r\n\r\n",
        f"GET /?{SECRET} HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
        f"POST /v1/scans?{SECRET} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -3\r\n\r\n",
    ],
    ids=["a longer line", "no HTTP", "two hosts", "negative length"],
)
def test_what_is_no_http_is_refused_and_quoted_nowhere(redis_url, tmp_path, caplog, sent):
    async def test(api):
        port = int(api.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent.encode())
        assert (await reader.readline()).split()[1] == b"400"
        writer.close()
        assert (await api.ask("GET", "/healthz"))[0] == 200

    with caplog.at_level(logging.DEBUG):
        served(redis_url, tmp_path, test)
    assert SECRET not in caplog.text


def test_what_is_about_us_is_logged():
    record = logging.LogRecord("api.http", logging.ERROR, "", 0, "x", (), (ValueError, ValueError("ours"), None))
    assert is_news(record)


def test_a_form_whose_headers_are_none_is_refused_as_no_form(redis_url, tmp_path):
    async def test(api):
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        for part in ("[no header: at all]", "Content-Disposition form-data", "\x00: x", "a" * 2 * LINE_BYTES + ": x"):
            data = f"--b\r\n{part}\r\n\r\nx\r\n--b--\r\n".encode()
            status, body, _ = await api.ask("POST", "/v1/scans", data=data, headers=headers)
            assert (status, body["error"]["code"]) in {(400, "bad_request"), (422, "invalid")}, part

    served(redis_url, tmp_path, test)
