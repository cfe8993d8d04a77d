"""Pairs: same photograph, same view, mask on the forgery, families and sources as asked."""

import itertools
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from sitters import portraits

from scanner.training import data
from scanner.training.data import Pairs, Sample, View, collate, fixed, pair
from scanner.training.portraits import CANVAS_PX, CROP_PX


def batches(count, families=("attribute",), **choices):
    return list(itertools.islice(Pairs(portraits(), families, **{"pairs": 1, "seed": 0, **choices}), count))


@pytest.mark.parametrize("seed", range(4))
def test_a_mask_goes_where_its_pixels_go(seed):
    mask = np.zeros((CANVAS_PX, CANVAS_PX), np.float32)
    cv2.ellipse(mask, (150, 200), (60, 30), 20, 0, 360, 1.0, -1)
    view = View.draw(np.random.default_rng(seed))
    seen, where = view.of(np.repeat((mask * 255).astype(np.uint8)[..., None], 3, 2))[..., 0] > 127, view.of_mask(mask)
    assert (where.shape, where.dtype) == ((CROP_PX, CROP_PX), np.float32)
    assert (seen & (where > 0.5)).sum() / (seen | (where > 0.5)).sum() > 0.97


@pytest.mark.parametrize("factor", [0.4, 0.75, 1.5, 2.5])
def test_a_resized_picture_is_seen_at_the_same_place(factor):
    canvas, view = portraits()[0].canvas, View.draw(np.random.default_rng(1))
    smooth = cv2.GaussianBlur(canvas, (0, 0), 4)  # so that only a shift could make a difference
    resized = cv2.resize(smooth, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else 1)
    seen, as_is = view.of(resized).astype(float), view.of(smooth).astype(float)
    assert np.abs(seen - as_is).mean() < 1.0
    assert np.abs(np.roll(seen, 3, 1) - as_is).mean() > 1.5  # a shift would be noticed


def test_views_are_near_the_middle_and_half_are_mirrored():
    rng = np.random.default_rng(0)
    views = [View.draw(rng) for _ in range(200)]
    centres = np.array([view.matrix @ (CANVAS_PX / 2, CANVAS_PX / 2, 1) for view in views])
    assert np.abs(centres - CROP_PX / 2).max() <= 0.04 * CROP_PX + 1e-6
    assert sum(view.flip for view in views) == pytest.approx(100, abs=30)


@pytest.mark.parametrize("family", ["attribute", "swap"])
def test_a_pair_is_one_photograph_with_and_without_a_forgery(family):
    portrait, donor = portraits()[0], portraits()[1]
    real, fake = pair(portrait, donor, family, np.random.default_rng(0), strength=0)
    assert (real.family, fake.family) == ("real", family)
    assert real.identity == fake.identity == portrait.identity
    assert real.crop.shape == fake.crop.shape == (CROP_PX, CROP_PX, 3)
    assert not real.mask.any()
    change = np.abs(real.crop.astype(float) - fake.crop).mean(2)
    assert change[fake.mask > 0.9].mean() > 3
    assert change[fake.mask == 0].mean() < 1


def test_collate_makes_what_the_network_and_the_losses_take():
    mask = np.zeros((CROP_PX, CROP_PX), np.float32)
    mask[:64] = 1
    crop = np.zeros((CROP_PX, CROP_PX, 3), np.uint8)
    crop[..., 0] = 200
    x, masks, real = collate([Sample(crop, 0 * mask, "real", "a"), Sample(crop, mask, "swap", "a")])
    assert (x.shape, x.dtype) == ((2, 3, CROP_PX, CROP_PX), torch.uint8)
    assert x.float().mean((0, 2, 3)).tolist() == [200, 0, 0]
    assert (masks.shape, masks.dtype) == ((2, 64, 64), torch.float32)
    assert masks.mean((1, 2)).tolist() == [0, 0.25]
    assert real.tolist() == [1, 0]


def test_a_batch_is_reals_and_then_their_forgeries():
    ((x, mask, real),) = batches(1, pairs=3)
    assert x.shape[0] == 6
    assert real.tolist() == [1, 1, 1, 0, 0, 0]
    assert (mask.amax((1, 2)) > 0).tolist() == [False] * 3 + [True] * 3


def test_a_stream_is_the_same_for_the_same_seed_and_place():
    (first, again, other, later) = (batches(1, **choices)[0][0] for choices in ({}, {}, {"seed": 1}, {"begin": 5}))
    assert (first == again).all()
    assert (first != other).any()
    assert (first != later).any()


def test_training_begins_with_undegraded_pictures():
    ((x, mask, _),) = batches(1, easy_steps=100)
    real, fake = x.chunk(2)
    outside = torch.nn.functional.interpolate(mask[1:, None], (CROP_PX, CROP_PX))[:, 0] == 0
    same = (real == fake).all(1)
    assert same[outside].float().mean() > 0.95  # no codec has touched either of the two


def test_only_the_given_families_are_forged_and_each_as_often(monkeypatch):
    forged = Counter()
    true_forge = data.forged

    def counted(portrait, donor, family, rng):
        forged[family] += 1
        return true_forge(portrait, donor, family, rng)

    monkeypatch.setattr(data, "forged", counted)
    batches(4, ("attribute", "warp"), pairs=5)
    assert set(forged) == {"attribute", "warp"}
    assert min(forged.values()) >= 4


def test_small_sources_are_drawn_more_often_than_their_share():
    source = ["large"] * 4 + ["small"] * 1
    five = [replace(p, source=s) for p, s in zip(portraits()[:5], source, strict=True)]
    weight = Pairs(five, ("warp",), pairs=1, seed=0).weight
    assert weight.sum() == pytest.approx(1)
    assert weight[:4].sum() == pytest.approx(2 * weight[4])  # the square root of 4 to that of 1


def test_a_fixed_set_never_changes():
    first, again = (fixed(portraits()[:2], ("attribute", "swap"), per_family=2, seed=5) for _ in range(2))
    assert {family: len(group) for family, group in first.items()} == {"real": 4, "attribute": 2, "swap": 2}
    for family, group in first.items():
        for one, two in zip(group, again[family], strict=True):
            assert one.family == family
            assert (one.crop == two.crop).all()
            assert (one.mask == two.mask).all()


def test_a_family_without_a_donor_for_anybody_is_refused():
    lonely = [replace(p, identity=str(i)) for i, p in enumerate(portraits())]
    with pytest.raises(ValueError, match="expression needs two pictures"):
        fixed(lonely, ["expression"], per_family=1, seed=0)
