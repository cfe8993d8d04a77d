"""Which words of a server may stand for bytes, and how they are asked for over real HTTP."""

import asyncio

import pytest
from origin import ALLOWED, Origin, jpeg

from scanner import errors
from scanner.cache.validators import NO_VALIDATORS, NotModified, Validators
from scanner.fetching.fetch import fetch
from scanner.settings import Settings

JPEG = jpeg()
NOON, HOUR_AGO, SECOND_AGO = (f"Mon, 23 Nov 2026 {clock} GMT" for clock in ("12:00:00", "11:00:00", "11:59:59"))
SETTINGS = Settings(allow_networks=ALLOWED)


@pytest.fixture
def origin():
    serving = Origin()
    yield serving
    serving.close()


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({"ETag": '"v1"'}, Validators('"v1"', None)),
        ({"ETag": 'W/"v1"'}, NO_VALIDATORS),
        ({"ETag": '""'}, NO_VALIDATORS),
        ({"ETag": '"'}, NO_VALIDATORS),
        ({"ETag": "v1"}, NO_VALIDATORS),
        ({"ETag": '"a\nb"'}, NO_VALIDATORS),
        ({"ETag": '"' + "v" * 600 + '"'}, NO_VALIDATORS),
        ({"Last-Modified": HOUR_AGO, "Date": NOON}, Validators(None, HOUR_AGO)),
        ({"Last-Modified": SECOND_AGO, "Date": NOON}, NO_VALIDATORS),
        ({"Last-Modified": HOUR_AGO}, NO_VALIDATORS),
        ({"Last-Modified": "yesterday", "Date": NOON}, NO_VALIDATORS),
        ({}, NO_VALIDATORS),
    ],
)
def test_only_what_promises_equal_bytes_is_kept(headers, known):
    assert Validators.of(headers) == known


def test_the_stronger_of_two_is_asked_with():
    assert Validators('"v1"', HOUR_AGO).headers() == {"If-None-Match": '"v1"'}
    assert Validators(None, HOUR_AGO).headers() == {"If-Modified-Since": HOUR_AGO}
    assert NO_VALIDATORS.headers() == {}


def test_what_a_server_says_comes_with_the_picture_and_goes_back_with_the_next_question(origin, tmp_path):
    url = origin.answer("/a.jpg", JPEG, ETag='"v1"', Last_Modified=HOUR_AGO, Date=NOON)
    got = asyncio.run(fetch(url, folder=tmp_path, settings=SETTINGS))
    assert got.validators == Validators('"v1"', HOUR_AGO)
    origin.raw("/a.jpg", "304 Not Modified", 'ETag: "v1"')
    got.path.unlink()
    with pytest.raises(NotModified):
        asyncio.run(fetch(url, folder=tmp_path, settings=SETTINGS, known=got.validators))
    assert origin.requests[-1][1]["if-none-match"] == '"v1"'
    assert list(tmp_path.iterdir()) == []


def test_what_changed_is_fetched_although_something_is_known(origin, tmp_path):
    url = origin.answer("/a.jpg", JPEG, ETag='"v2"')
    got = asyncio.run(fetch(url, folder=tmp_path, settings=SETTINGS, known=Validators('"v1"', None)))
    assert got.validators == Validators('"v2"', None)
    assert got.path.read_bytes() == JPEG


def test_an_answer_that_nobody_asked_for_is_no_answer(origin, tmp_path):
    origin.raw("/a.jpg", "304 Not Modified")
    with pytest.raises(errors.SourceFailed):
        asyncio.run(fetch(origin.url("/a.jpg"), folder=tmp_path, settings=SETTINGS))
