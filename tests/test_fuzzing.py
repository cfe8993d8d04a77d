"""The short form of `tests/fuzzing.py`: every target on its seeds, on some mutations, and on what was ever found."""

import asyncio
import itertools
import logging
from pathlib import Path

import fuzz_targets
import fuzzing
import pytest
from origin import ALLOWED, Origin
from PIL import Image

from scanner.decoding import jail as jail_module
from scanner.errors import DecoderFailed, NoMedia
from scanner.fetching import page
from scanner.fetching.fetch import fetch
from scanner.settings import Settings

FEW = {"jail": 4, "picture": 40, "video": 40, "proxy": 40, "list": 30, "cache": 60}
USUAL = 300
FOUND = [(path.parent.name, path) for path in sorted(fuzzing.FOUND.rglob("*")) if path.is_file()]


@pytest.fixture(autouse=True, scope="module")
def released():
    yield
    fuzz_targets.prison().close()
    fuzz_targets.prison.cache_clear()


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("target", fuzz_targets.TARGETS)
def test_no_promise_is_broken_by_seeds_and_mutations(target):
    check, seeds = fuzz_targets.TARGETS[target]
    for data in itertools.chain(seeds(), itertools.islice(fuzzing.mutations(seeds(), 7), FEW.get(target, USUAL))):
        check(data)


def test_the_ceiling_of_one_picture_is_none_of_the_next_ones():
    usual = Image.MAX_IMAGE_PIXELS
    for one in fuzz_targets.pictures():
        fuzz_targets.TARGETS["picture"].check(one)
    assert usual == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(("target", "path"), FOUND, ids=lambda one: one.name if isinstance(one, Path) else one)
def test_what_was_found_stays_mended(target, path):
    fuzz_targets.TARGETS[target].check(path.read_bytes())


def test_every_found_file_belongs_to_a_target():
    assert {target for target, _ in FOUND} <= set(fuzz_targets.TARGETS)
    assert len(FOUND) >= 14


def test_mutations_are_the_same_for_the_same_number():
    first, again, other = (list(itertools.islice(fuzzing.mutations([b"seed"], n), 50)) for n in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) > 40


def test_what_breaks_a_target_is_left_in_a_file(tmp_path, monkeypatch):
    def brittle(data):
        assert len(data) < 10

    monkeypatch.setitem(fuzz_targets.TARGETS, "brittle", fuzz_targets.Target(brittle, lambda: [b"seed"]))
    with pytest.raises(AssertionError):
        fuzzing._random("brittle", 60, 1, tmp_path)
    (left,) = tmp_path.iterdir()
    assert len(left.read_bytes()) >= 10


# ---------------------------------------------------------------- children that were broken into


@pytest.mark.parametrize(
    "words",
    ["print('[' * 9_000)", "print('x' * 200_000)", 'print(\'{"error": "no_engine", "message": "again"}\')',
     'print(\'{"error": 7}\')', 'print(\'{"bytes": "many"}\')', "import os; os.write(1, b'\\xff\\n')"],
)  # fmt: skip
def test_a_page_process_that_raves_is_a_page_without_media(tmp_path, monkeypatch, words):
    monkeypatch.setattr(page, "_LAUNCH", words)
    origin = Origin()
    url = origin.answer("/page", b"<!doctype html><html></html>")
    with pytest.raises(NoMedia):
        asyncio.run(fetch(url, folder=tmp_path, settings=Settings(allow_networks=ALLOWED, require_jail=False)))
    origin.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "answer", [b"\x91" * 1500, b"\x81\xa4code\xa9no_engine", b"\x81\xa4code\xa7unknown", b"\xff", b""]
)
def test_a_decoder_that_raves_has_failed_on_this_file(tmp_path, answer):
    place = tmp_path / "answer"
    place.write_bytes(answer)
    with place.open("rb") as file, pytest.raises(DecoderFailed):
        jail_module._read(file.fileno())
