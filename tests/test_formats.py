"""A file is what its first bytes say; everything else stays out."""

import pytest
from media import NOT_MEDIA, animation, clip, picture, playlists, sound

from scanner.formats import ALLOWED, HEAD_BYTES, looks_like_html, sniff

PICTURES = ("jpeg", "png", "webp", "gif", "avif", "bmp", "heic")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_known_by_content(name):
    found = sniff(picture(name))
    assert found is not None
    assert (found.name, found.kind) == (name, "image")


@pytest.mark.parametrize("name", ["gif", "webp", "avif", "png"])
def test_animations_count_as_pictures(name):
    found = sniff(animation(name, 3))
    assert found is not None
    assert (found.name, found.kind) == (name, "image")


@pytest.mark.parametrize(
    ("file", "name", "container"),
    [
        ("a.mp4", "mp4", None),
        ("a.mov", "mp4", None),
        ("a.mkv", "matroska", None),
        ("a.ts", "mpegts", None),
        ("a.jpg", "mp4", "mp4"),
    ],
)
def test_videos_are_known_by_content_not_by_name(tmp_path, file, name, container):
    found = sniff(clip(tmp_path / file, count=12, container=container).read_bytes())
    assert found is not None
    assert (found.name, found.kind) == (name, "video")


def test_a_webm_is_matroska(tmp_path):
    assert sniff(clip(tmp_path / "a.webm", count=4, codec="libvpx-vp9").read_bytes()[:64]).name == "matroska"


@pytest.mark.parametrize("name", NOT_MEDIA)
def test_what_is_not_on_the_list_is_refused(name):
    assert sniff(NOT_MEDIA[name]) is None


def test_playlists_are_refused_under_any_name(tmp_path):
    assert {name: sniff(text) for name, text in playlists(tmp_path).items() if sniff(text)} == {}


def test_an_audio_book_is_refused_by_its_brand(tmp_path):
    assert sniff(sound(tmp_path / "a.m4a").read_bytes()) is None


@pytest.mark.parametrize("length", [0, 1, 3, 7, 8, 11, 12, 16, 20])
@pytest.mark.parametrize("name", PICTURES)
def test_short_heads_never_raise(name, length):
    found = sniff(picture(name)[:length])
    assert found is None or found.name in {name, "mp4"}


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "heic"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "mp4"),
        (b"\0\0\0\x08wide\0\0\x10\0mdat", "mp4"),
        (b"\0\0\0\1mdat\0\0\0\0\0\0\x10\0", "mp4"),
        (b"\0\0\0\x14ftypM4A \0\0\0\0mp42", None),
        (b"\0\0\0\2moov", None),
        (b"BM" + b" is what some words begin with", None),
        ((b"\0\0\0\0G" + b"\xff" * 187) * 4, "mpegts"),
        (b"G" * 3, None),
        (b"G" + b"x" * 400, None),
    ],
)
def test_brands_and_sync_bytes_decide(head, name):
    found = sniff(head)
    assert (found and found.name) == name


def test_only_the_head_is_looked_at():
    assert sniff(b"\0" * HEAD_BYTES + picture("png")) is None


def test_the_list_is_what_the_design_says():
    assert {allowed.name for allowed in ALLOWED} == {*PICTURES, "mp4", "matroska", "mpegts"}


@pytest.mark.parametrize(
    ("head", "is_page"),
    [
        (b"<!DOCTYPE html><html>", True),
        (b"\xef\xbb\xbf\n\n  <HTML lang=en>", True),
        (b"<!-- saved --><html>", True),
        (b'<?xml version="1.0"?><html xmlns="x">', True),
        (b'<?xml version="1.0"?><svg xmlns="x">', False),
        (b"\xff\xd8\xff\xe0", False),
        (b"#EXTM3U", False),
        (b"", False),
    ],
)
def test_pages_are_told_from_media(head, is_page):
    assert looks_like_html(head) is is_page
