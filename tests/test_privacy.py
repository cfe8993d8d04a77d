"""Secrets stay where they have to be, and no longer: the short form of `tests/markers.py`, and what is deleted when."""

import logging
import os
import time

import crew
import markers
import pytest
import redis
from test_limits import Blind

from scanner import pipeline
from scanner.cache.urls import for_log
from scanner.pipeline import Scanner
from scanner.service.reconciler import Reconciler
from scanner.settings import Settings


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    opened = markers.House(tmp_path_factory.mktemp("house"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ran(house):
    return markers.run(house, 40)


def test_markers_lie_where_they_must_and_nowhere_else(ran):
    codes, fine, leaks = ran
    assert leaks == {}
    assert len(codes) >= 5, codes
    assert {place.split(" ")[0] for place in fine} == {"redis", "file"}


def test_after_the_scans_the_only_medium_on_disk_is_the_upload(house, ran):
    (left,) = markers.listing(house)
    assert left.startswith("spool/")


def test_an_upload_is_deleted_after_its_scan_and_what_expired_in_redis_leaves_the_disk(house, ran):
    client = redis.Redis.from_url(house.crew.url)
    settings = Settings(redis_url=house.crew.url, spool=str(house.folder / "spool"))
    (upload,) = (house.folder / "spool").iterdir()
    os.utime(upload, (time.time() - 700,) * 2)
    client.delete("laescan:rewritten", *client.scan_iter("laescan:*"))  # as if a week had passed
    Reconciler(client, settings)._forget_media()
    client.close()
    assert not upload.exists()
    kept = house.folder / "redis"
    crew.until(lambda: not any(markers.MARK in path.read_bytes() for path in kept.rglob("*") if path.is_file()))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://user:pass@host.test:8443/secret?secret#secret", "https://host.test:8443/..."),
        ("http://host.test", "http://host.test/..."),
        ("http://a@b@host.test?secret", "http://host.test/..."),
        ("photos/me.jpg", "photos/me.jpg"),
    ],
)
def test_a_log_names_a_url_by_its_host(source, said):
    assert for_log(source) == said


def test_a_bug_is_logged_without_the_url_that_met_it(caplog, monkeypatch):
    async def broken(*_, **__):
        msg = "a bug"
        raise RuntimeError(msg)

    monkeypatch.setattr(pipeline, "fetch", broken)
    with Scanner(Settings(), model=Blind()) as scanner, caplog.at_level(logging.DEBUG):
        outcome = scanner.scan_blocking("http://joe:secret@host.test/secret?secret").outcome
    assert outcome.failure.code == "internal"
    assert "host.test" in caplog.text
    assert "secret" not in caplog.text
