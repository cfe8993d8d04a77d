"""Fetching pictures and files: every bad answer of a server has its code, its words, and leaves nothing on disk."""

import asyncio
import gzip
import hashlib
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from origin import ALLOWED, ORIGIN_HOST, SPELLINGS, Canary, Origin, fails, fake_getaddrinfo, jpeg, take

from scanner import errors
from scanner.fetching.egress import METADATA_SERVICES, SPECIAL_RANGES
from scanner.fetching.fetch import fetch, parse_retry_after
from scanner.settings import Settings

JPEG = jpeg()
BIG_JPEG = jpeg(640, 480)


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
def fake_dns(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo(socket.getaddrinfo))


# ---------------------------------------------------------------- the good way


@pytest.mark.parametrize("status", ["200 OK", "203 Non-Authoritative Information"])
def test_a_picture_lands_in_the_folder_with_its_digest(origin, tmp_path, status):
    url = origin.answer("/a.html", BIG_JPEG, status=status, Content_Type="text/html")  # neither name nor type decides
    heard = []
    settings = Settings(allow_networks=ALLOWED)
    got = asyncio.run(fetch(f" {url}\n", folder=tmp_path, settings=settings, progress=lambda *step: heard.append(step)))
    assert got.path.read_bytes() == BIG_JPEG
    assert got.path.parent == tmp_path
    assert (got.url, got.via, got.size_bytes) == (url, "http", len(BIG_JPEG))
    assert got.sha256 == hashlib.sha256(BIG_JPEG).hexdigest()
    assert heard[-1] == (len(BIG_JPEG), len(BIG_JPEG))


def test_a_picture_without_a_length_comes_whole(origin, tmp_path):
    url = origin.raw("/a", "200 OK", body=BIG_JPEG)
    assert take(url, tmp_path).size_bytes == len(BIG_JPEG)


def test_a_picture_that_was_gzipped_although_we_asked_not_to_is_unpacked(origin, tmp_path):
    url = origin.answer("/a", gzip.compress(BIG_JPEG), Content_Encoding="gzip")
    assert take(url, tmp_path).path.read_bytes() == BIG_JPEG
    assert origin.requests[0][1]["accept-encoding"] == "identity"


# ---------------------------------------------------------------- addresses


def test_no_spelling_reaches_a_canary_direct_or_by_redirect(origin, canary, fake_dns, tmp_path):
    kinds = set()
    for number, spelling in enumerate(SPELLINGS):
        target = f"http://{spelling}:{canary.port}/picture.jpg"
        for source in (target, origin.redirect(f"/{number}", target)):
            with pytest.raises(errors.ScanError) as caught:
                take(source, tmp_path, allow_ports=(80, 443, canary.port))
            kinds.add(type(caught.value))
    assert canary.count() == 0
    assert kinds <= {errors.BlockedAddress, errors.BadSource, errors.SourceFailed, errors.Unreachable, errors.Empty}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [*(r.partition("/")[0] for r in SPECIAL_RANGES), *METADATA_SERVICES])
def test_special_ranges_are_blocked_direct_and_by_redirect(origin, tmp_path, text):
    target = f"http://[{text}]/" if ":" in text else f"http://{text}/"
    fails(errors.BlockedAddress, target, tmp_path)
    fails(errors.BlockedAddress, origin.redirect("/r", target), tmp_path)


def test_ports_beyond_the_web_are_blocked_outside_opened_networks(tmp_path):
    fails(errors.BlockedAddress, "http://1.1.1.1:6379/", tmp_path)


def test_the_proxies_of_the_environment_are_not_used(origin, canary, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    assert take(origin.answer("/a", JPEG), tmp_path).size_bytes == len(JPEG)
    assert canary.count() == 0


# ---------------------------------------------------------------- redirects


def chain(origin, hops):
    """A picture behind so many redirects of every kind."""
    origin.answer(f"/{hops}", JPEG)
    for hop, status in zip(range(hops), [301, 302, 303, 307, 308] * 5, strict=False):
        origin.raw(f"/{hop}", f"{status} Go", f"Location: /{hop + 1}", "Content-Length: 0")
    return origin.url("/0")


@pytest.mark.parametrize("hops", [1, 5])
def test_redirects_are_followed_up_to_the_limit(origin, tmp_path, hops):
    got = take(chain(origin, hops), tmp_path)
    assert got.url == origin.url(f"/{hops}")
    assert got.source == origin.url("/0")


@pytest.mark.parametrize("hops", [6, 20])
def test_one_redirect_more_is_refused(origin, tmp_path, hops):
    fails(errors.TooManyRedirects, chain(origin, hops), tmp_path)
    assert len(origin.requests) == 6


def test_a_redirect_loop_ends(origin, tmp_path):
    fails(errors.TooManyRedirects, origin.redirect("/loop", "/loop"), tmp_path)


@pytest.mark.parametrize(
    "to",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.5/a",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.5/",
        "//[::",
    ],
)
def test_redirects_leave_neither_http_nor_https(origin, tmp_path, to):
    fails(errors.SourceFailed, origin.redirect("/r", to), tmp_path)


def test_a_redirect_to_nowhere_is_a_failure(origin, tmp_path):
    fails(errors.SourceFailed, origin.raw("/r", "302 Found", "Content-Length: 0"), tmp_path)


def test_no_secret_goes_from_hop_to_hop(origin, tmp_path):
    origin.answer("/end", JPEG)
    origin.raw(
        "/start", "302 Found", f"Location: http://joe:word@{ORIGIN_HOST}:{origin.port}/end", "Set-Cookie: s=1; Path=/"
    )
    take(f"http://user:secret@{ORIGIN_HOST}:{origin.port}/start?token=1", tmp_path)
    assert [path for path, _ in origin.requests] == ["/start?token=1", "/end"]
    for _, headers in origin.requests:
        assert not {"authorization", "cookie", "referer", "proxy-authorization"} & set(headers)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((code, errors.Gone) for code in (404, 410)),
        *((code, errors.Forbidden) for code in (401, 403, 407, 451)),
        *((code, errors.SourceFailed) for code in (206, 304, 400, 418, 500, 502, 503, 504)),
        (429, errors.RateLimited),
        (204, errors.Empty),
    ],
)
def test_an_error_page_is_never_a_picture(origin, tmp_path, status, error):
    body = b"" if status in {204, 304} else JPEG
    assert type(fails(error, origin.answer("/a", body, status=f"{status} Words"), tmp_path)) is error


def test_too_many_requests_says_when_to_come_back(origin, tmp_path):
    url = origin.answer("/a", status="429 Too Many Requests", Retry_After="17")
    assert fails(errors.RateLimited, url, tmp_path).retry_after_s == 17.0


def test_retry_after_is_seconds_or_a_date():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < parse_retry_after(soon) <= 90
    assert parse_retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert parse_retry_after(" 120 ") == 120.0
    for nothing in (None, "", "soon", "-5", "1.5", "٣", "Wed, 99 Oct 2015"):
        assert parse_retry_after(nothing) is None


@pytest.mark.parametrize(
    "body",
    [b"%PDF-1.7\n" * 600, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"plain words", b"ID3\x04" + b"\0" * 9000,
     b"RIFF\x24\0\0\0WAVEfmt ", b"\x7fELF", b'{"a": 1}', b"II*\0" + b"\0" * 50],
)  # fmt: skip
def test_what_is_neither_picture_nor_video_nor_page_is_unsupported(origin, tmp_path, body):
    fails(errors.UnsupportedMedia, origin.answer("/a.jpg", body, Content_Type="image/jpeg"), tmp_path)


def test_an_empty_body_is_empty(origin, tmp_path):
    fails(errors.Empty, origin.answer("/a"), tmp_path)


def test_a_server_that_speaks_something_else_has_failed(origin, tmp_path):
    origin.routes["/a"] = b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
    fails(errors.SourceFailed, origin.url("/a"), tmp_path)


def test_no_host_no_port_no_tls_are_unreachable(origin, tmp_path, fake_dns):
    with socket.create_server((ORIGIN_HOST, 0)) as taken:
        free = taken.getsockname()[1]
    fails(errors.Unreachable, f"http://{ORIGIN_HOST}:{free}/", tmp_path)
    fails(errors.Unreachable, "http://nowhere.test/", tmp_path)
    fails(errors.TimedOut, f"https://{ORIGIN_HOST}:{origin.port}/", tmp_path, connect_timeout_s=0.2)  # speaks no TLS


# ---------------------------------------------------------------- other sources


@pytest.mark.parametrize(
    "source",
    ["data:image/png;base64,iVBORw0KGgo=", "file:///etc/passwd", "ftp://host/a.jpg", "blob:https://x/1", "https:a",
     "javascript:alert(1)", "gopher://127.0.0.1:6379/_x", "HTTP://", "http://", "https:///a.jpg", "http://a b/",
     "http://a/\n\rHost: b", "http://[::1", "http://a:99999/", "http://a:b/", "http://x/" + "a" * 8192, "http:",
     "rtmp://host/live"],
)  # fmt: skip
def test_what_we_do_not_fetch_is_a_bad_source(tmp_path, source):
    fails(errors.BadSource, source, tmp_path)


@pytest.fixture
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("user")


@pytest.mark.parametrize("name", ["a.jpg", "photo: me.txt", "-x"])
def test_a_local_file_is_read_where_it_lies(elsewhere, tmp_path, name):
    path = elsewhere / name
    path.write_bytes(JPEG)
    got = take(str(path), tmp_path)
    assert (got.path, got.via, got.url, got.size_bytes) == (path, "file", None, len(JPEG))
    assert got.sha256 == hashlib.sha256(JPEG).hexdigest()
    assert list(tmp_path.iterdir()) == []


def test_local_things_that_are_no_media_file(elsewhere, tmp_path):
    os.mkfifo(elsewhere / "fifo")
    cases = {"empty": b"", "page": b"<!doctype html><p>hi", "list.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"}
    for name, body in cases.items():
        (elsewhere / name).write_bytes(body)
    (elsewhere / "big.jpg").write_bytes(BIG_JPEG)
    fails(errors.Gone, str(elsewhere / "missing.jpg"), tmp_path)
    fails(errors.Gone, str(elsewhere / "empty" / "x"), tmp_path)
    for source in (elsewhere, elsewhere / "fifo", "/dev/zero", "a" * 5000, "a\0b"):
        fails(errors.BadSource, str(source), tmp_path)
    fails(errors.Empty, str(elsewhere / "empty"), tmp_path)
    fails(errors.UnsupportedMedia, str(elsewhere / "page"), tmp_path)
    fails(errors.UnsupportedMedia, str(elsewhere / "list.mp4"), tmp_path)
    fails(errors.TooLarge, str(elsewhere / "big.jpg"), tmp_path, max_image_bytes=len(BIG_JPEG) - 1)


STDIN_PROGRAM = """
import asyncio, sys
from pathlib import Path
from scanner.errors import ScanError
from scanner.fetching.fetch import fetch
from scanner.settings import Settings
try:
    work = fetch("-", folder=Path(sys.argv[1]), settings=Settings(max_image_bytes=90_000))
    got = asyncio.run(asyncio.wait_for(work, 20))
    print(got.via, got.path.name, got.sha256)
except (ScanError, TimeoutError) as error:
    print(type(error).__name__)
"""


def from_stdin(folder, **stdin):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STDIN_PROGRAM, str(folder)],
        **stdin, capture_output=True, check=True, timeout=60, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    return done.stdout.decode().strip()


def test_standard_input_from_a_pipe_and_from_a_file(tmp_path, elsewhere):
    expected = f"stdin stdin {hashlib.sha256(JPEG).hexdigest()}"
    assert from_stdin(tmp_path, input=JPEG) == expected
    (elsewhere / "a").write_bytes(JPEG)
    with (elsewhere / "a").open("rb") as file:
        assert from_stdin(tmp_path, stdin=file) == expected


@pytest.mark.parametrize(
    ("body", "error"),
    [(b"", "Empty"), (b"<html>", "UnsupportedMedia"), (JPEG + bytes(100_000), "TooLarge")],
)
def test_bad_standard_input_leaves_nothing(tmp_path, body, error):
    assert from_stdin(tmp_path, input=body) == error
    assert list(tmp_path.iterdir()) == []
