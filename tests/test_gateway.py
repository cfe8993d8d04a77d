"""The only door of an internal-only network: what is behind it reaches what the door lets pass, and nothing past it."""

import os
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from origin import ALLOWED, ORIGIN_HOST, SPELLINGS, Canary, Origin, fails, fake_getaddrinfo, jpeg, take, video

from scanner import errors
from scanner.fetching.proxy import OWN_ANSWER
from scanner.settings import Settings, SettingsError

JPEG = jpeg()
PASSWORD = "p%40ss"  # an @ in it


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


@pytest.fixture(scope="module")
def door():
    """A real process, as a container runs it; only it may reach the origin."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://laescan:{PASSWORD}@127.0.0.1:{port}"
    environ = {**os.environ, "LAESCAN_EGRESS_PROXY": url, "LAESCAN_ALLOW_NETWORKS": ",".join(ALLOWED)}
    command = (sys.executable, "-m", "scanner.fetching.gateway")
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert "open" in process.stderr.readline()
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def behind(door, **settings):
    """Settings that may reach nothing by themselves."""
    return {"egress_proxy": door, "allow_networks": (), **settings}


def test_a_picture_comes_through_the_door_alone(origin, door, tmp_path):
    url = origin.answer("/a.jpg", JPEG)
    assert take(url, tmp_path, **behind(door)).path.read_bytes() == JPEG
    _, headers = origin.requests[0]
    assert headers["host"] == f"{ORIGIN_HOST}:{origin.port}"
    assert not any(name.startswith("proxy") for name in headers)


def test_a_redirect_is_another_request_of_the_door(origin, canary, door, tmp_path):
    there = origin.answer("/b.jpg", JPEG)
    origin.redirect("/ok", there)
    origin.redirect("/out", f"http://127.0.0.1:{canary.port}/")
    assert take(origin.url("/ok"), tmp_path, **behind(door)).url == there
    fails(errors.BlockedAddress, origin.url("/out"), tmp_path, **behind(door))
    assert canary.count() == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_spelling_reaches_a_canary_past_the_door(canary, door, tmp_path, scheme, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo(socket.getaddrinfo))
    for spelling in SPELLINGS:
        with pytest.raises((errors.BlockedAddress, errors.Unreachable, errors.BadSource)):
            take(f"{scheme}://{spelling}:{canary.port}/", tmp_path, **behind(door))
    assert canary.count() == 0


def test_a_server_cannot_speak_for_the_door_nor_the_door_for_a_server(origin, door, tmp_path):
    url = origin.answer("/forbidden", b"no", status="403 Forbidden", **{OWN_ANSWER.replace("-", "_"): "laescan"})
    fails(errors.Forbidden, url, tmp_path, **behind(door))


def test_a_video_page_goes_through_the_door(origin, door, tmp_path):
    origin.answer("/film.mp4", video(), Content_Type="video/mp4")
    page = origin.answer("/page", b"<html><video src='/film.mp4'></video></html>", Content_Type="text/html")
    assert take(page, tmp_path, **behind(door)).via == "page"


def test_a_page_that_leads_inside_is_blocked_by_the_door(origin, canary, door, tmp_path):
    body = f"<html><video src='http://127.0.0.1:{canary.port}/film.mp4'></video></html>".encode()
    fails(errors.BlockedAddress, origin.answer("/page", body, Content_Type="text/html"), tmp_path, **behind(door))
    assert canary.count() == 0


@pytest.mark.parametrize("broken", ["closed", "password"])
def test_without_the_door_there_is_no_way_out(origin, door, tmp_path, broken):
    url = origin.answer("/a.jpg", JPEG)
    wrong = door.replace(str(urlsplit(door).port), "9") if broken == "closed" else door.replace(PASSWORD, "guess")
    fails(
        errors.Unreachable, url, tmp_path, **behind(wrong, allow_networks=ALLOWED)
    )  # it could go itself, and must not
    page = origin.answer("/page", b"<html><video src='/film.mp4'></video></html>", Content_Type="text/html")
    fails(errors.Unreachable, page, tmp_path, **behind(wrong, allow_networks=ALLOWED))
    assert origin.requests == []


@pytest.mark.parametrize(
    "url", ["egress:3128", "http://egress:3128", "https://laescan:x@egress:3128", "http://laescan:x@egress", "http://["]
)
def test_a_door_that_is_not_whole_is_refused_without_its_secret(url):
    with pytest.raises(SettingsError, match="PASSWORD@HOST:PORT") as refusal:
        Settings.from_env({"LAESCAN_EGRESS_PROXY": url})
    assert url not in str(refusal.value)


def test_a_door_needs_its_setting():
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LAESCAN_")}
    command = (sys.executable, "-m", "scanner.fetching.gateway")
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "LAESCAN_EGRESS_PROXY" in done.stderr
