"""The short form of `tests/bitflips.py`: some damaged files, and a model that sees no faces."""

import asyncio
import itertools

import bitflips
from test_limits import Blind


def test_damaged_media_end_in_a_verdict_or_a_code_and_leave_nothing(tmp_path):
    tally = asyncio.run(bitflips.scan_all(bitflips.flipped(22, 3), tmp_path, model=Blind()))
    assert tally.failures == []
    assert tally.codes.total() == 22
    assert {"no_face", "broken_media"} <= set(tally.codes)


def test_the_same_seed_damages_the_same_bits():
    first, again, other = (list(itertools.islice(bitflips.flipped(60, seed), 60)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({data for _, data in first}) == 60


def test_a_run_that_was_cut_off_goes_on_after_its_last_slice(tmp_path, monkeypatch):
    monkeypatch.setattr(bitflips, "SLICE", 3)
    book, begun = tmp_path / "book", []
    monkeypatch.setattr(bitflips, "scan_all", lambda some, *_: _counted(some, begun))
    bitflips.scan_slices(7, 5, book)
    whole = list(begun)
    book.write_text("".join(book.read_text().splitlines(keepends=True)[:-1]))
    begun.clear()
    tally = bitflips.scan_slices(7, 5, book)
    assert (len(whole), begun, tally.codes.total()) == (7, whole[6:], 7)


async def _counted(some, begun):
    begun += [data for _, data in some]
    return bitflips.Tally({"no_face": len(some)})
