"""The example pictures: people who consented, whom training never saw, forged the same way every time."""

from dataclasses import replace

import numpy as np
import pytest
from sitters import portraits

from scanner.training import examples
from scanner.training.portraits import load, save, split_of

NAMES = {"example_original", "example_swap", "example_attribute", "example_inpaint"}


def people(split, source="london_neutral"):
    """The six sitters under other names, all of one split and source."""
    names = (str(n) for n in range(1000) if split_of(str(n)) == split)
    return [replace(p, identity=name, source=source) for p, name in zip(portraits(), names, strict=False)]


def test_only_consenting_people_of_the_test_split_are_shown():
    cast = people("test")
    crowd = [*people("train"), *people("test", source="fellows"), *cast]
    pictures = examples.examples(crowd)
    assert set(pictures) == NAMES
    assert (pictures["example_original"] == cast[0].canvas).all()
    for picture, portrait in zip(list(pictures.values())[1:], cast[1:], strict=False):
        changed = (picture != portrait.canvas).any(2).mean()
        assert 0 < changed < 0.7, "a part of the picture is forged, and only a part"


def test_the_same_examples_come_out_every_time():
    first, again = (examples.examples(people("test")) for _ in range(2))
    assert all((first[name] == again[name]).all() for name in NAMES)


def test_the_command_writes_one_jpeg_each(tmp_path, monkeypatch: pytest.MonkeyPatch):
    save(people("test"), tmp_path / "portraits.npz")
    assert np.array_equal(load(tmp_path / "portraits.npz")[0].canvas, portraits()[0].canvas)
    arguments = ["examples", "--portraits", str(tmp_path / "portraits.npz"), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    examples.main()
    assert {path.stem for path in tmp_path.glob("*.jpg")} == NAMES
