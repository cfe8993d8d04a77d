"""The short form of `tests/bitflips.py`: some damaged files, and a model that sees no faces."""

import asyncio
import itertools

import bitflips
from test_limits import Blind


def test_damaged_media_end_in_a_verdict_or_a_code_and_leave_nothing(tmp_path):
    tally = asyncio.run(bitflips.scan_all(22, 3, tmp_path, model=Blind()))
    assert tally.failures == []
    assert tally.codes.total() == 22
    assert {"no_face", "broken_media"} <= set(tally.codes)


def test_the_same_seed_damages_the_same_bits():
    first, again, other = (list(itertools.islice(bitflips.flipped(60, seed), 60)) for seed in (1, 1, 2))
    assert first == again != other
    assert len({data for _, data in first}) == 60
