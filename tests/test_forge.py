"""Every family forges something visible where its mask says, the same for the same seed."""

import itertools

import numpy as np
import pytest
from sitters import portraits

from scanner.training.forge import FAMILIES, VISIBLE, _onto, forge
from scanner.training.portraits import CANVAS_PX

SEEDS = range(5)
CASES = [*itertools.product(FAMILIES, SEEDS)]


def forged(family, seed):
    victim, donor = portraits()[seed % 6], portraits()[(seed + 1) % 6]
    return victim, forge(victim, donor, family, np.random.default_rng(seed))


def change(victim, forgery):
    return np.abs(forgery.picture.astype(np.float64) - victim.canvas).mean(2)


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_a_forgery_is_a_picture_and_an_honest_mask(family, seed):
    victim, forgery = forged(family, seed)
    assert forgery.family == family
    assert (forgery.picture.shape, forgery.picture.dtype) == ((CANVAS_PX, CANVAS_PX, 3), np.uint8)
    assert (forgery.mask.shape, forgery.mask.dtype) == ((CANVAS_PX, CANVAS_PX), np.float32)
    assert forgery.mask.min() >= 0
    assert forgery.mask.max() <= 1 + 1e-6
    inside = (change(victim, forgery) * forgery.mask).sum() / forgery.mask.sum()
    assert inside > 0.9 * VISIBLE  # `forge` measures on a quarter of the size


@pytest.mark.parametrize(
    ("family", "seed"), [*itertools.product(["resynthesis", "attribute", "warp", "inpaint", "swap"], SEEDS)]
)
def test_nothing_changes_outside_the_mask(family, seed):
    victim, forgery = forged(family, seed)
    assert change(victim, forgery)[forgery.mask == 0].max() == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_forges_the_same_and_another_one_does_not(family):
    first, again, other = (forged(family, seed)[1] for seed in (0, 0, 6))
    assert (first.picture == again.picture).all()
    assert (first.mask == again.mask).all()
    assert (first.mask != other.mask).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_original_is_left_alone(family):
    victim, donor = portraits()[0], portraits()[1]
    before = victim.canvas.copy(), donor.canvas.copy()
    forge(victim, donor, family, np.random.default_rng(3))
    assert (victim.canvas == before[0]).all()
    assert (donor.canvas == before[1]).all()


def test_only_a_swap_needs_the_donor():
    victim, donors = portraits()[0], portraits()[1:3]
    for family in FAMILIES:
        one, two = (forge(victim, donor, family, np.random.default_rng(1)).picture for donor in donors)
        assert (one == two).all() == (family != "swap"), family


def test_a_swap_shows_the_donor_and_not_the_victim():
    victim, donor = portraits()[0], portraits()[3]
    forgery = forge(victim, donor, "swap", np.random.default_rng(0))
    core = forgery.mask > 0.95
    shown, theirs, own = (p[core].mean(1) for p in (forgery.picture, _onto(donor, victim.shape), victim.canvas))
    assert np.corrcoef(shown, theirs)[0, 1] > np.corrcoef(shown, own)[0, 1] + 0.1


def test_an_unknown_family_is_an_error():
    with pytest.raises(KeyError, match="morph"):
        forge(portraits()[0], portraits()[1], "morph", np.random.default_rng(0))
