"""Masks: in 0..1, on the part they name, soft where asked."""

import numpy as np
import pytest
from sitters import portraits

from scanner.training import masks
from scanner.training.portraits import CANVAS_PX, REGIONS, region

EPSILON = 1e-6  # a blur of ones may end a rounding error above 1


def rng(seed=0):
    return np.random.default_rng(seed)


def centre_of(mask):
    y, x = np.nonzero(mask > 0.5)
    return np.array([x.mean(), y.mean()])


@pytest.mark.parametrize("name", REGIONS)
def test_named_masks_are_hard_and_cover_their_part(name):
    shape = portraits()[0].shape
    mask = masks.named(shape, name, CANVAS_PX)
    assert (mask.shape, mask.dtype) == ((CANVAS_PX, CANVAS_PX), np.float32)
    assert set(np.unique(mask)) == {0, 1}
    x, y = region(shape, name).round().astype(int).T
    assert mask[y, x].min() == 1


def test_hair_leaves_the_forehead_and_the_face_out():
    shape = portraits()[0].shape
    hair, eyes = (masks.named(shape, name, CANVAS_PX) for name in ("hair", "eyes"))
    assert (hair * eyes).sum() == 0
    assert hair.sum() < masks.polygon(region(shape, "hair"), CANVAS_PX).sum()


@pytest.mark.parametrize("seed", range(8))
def test_parts_to_blend_are_soft_and_on_the_face(seed):
    portrait = portraits()[seed % 6]
    mask = masks.face_like(portrait.shape, rng(seed), CANVAS_PX)
    assert mask.min() >= 0
    assert 0.3 < mask.max() <= 1 + EPSILON
    assert 0.002 < mask.mean() < 0.5
    assert ((mask > 0.01) & (mask < 0.99)).any()
    assert np.abs(centre_of(mask / mask.max()) - portrait.shape.mean(0)).max() < 0.3 * CANVAS_PX
    assert (mask == masks.face_like(portrait.shape, rng(seed), CANVAS_PX)).all()


def test_jitter_moves_an_outline_a_little():
    points = region(portraits()[0].shape, "inner")
    plain, moved = masks.polygon(points, CANVAS_PX), masks.jittered(points, rng(), CANVAS_PX)
    assert (plain != moved).any()
    assert (plain * moved).sum() / np.maximum(plain, moved).sum() > 0.6


@pytest.mark.parametrize("seed", range(6))
def test_feather_softens_the_edge_and_keeps_the_rest(seed):
    hard = masks.polygon(np.array([[100, 100], [250, 100], [250, 250], [100, 250]], np.float32), CANVAS_PX)
    soft = masks.feather(hard, rng(seed))
    assert soft.min() >= 0
    assert soft.max() <= 1 + EPSILON
    assert soft[175, 175] == pytest.approx(1, abs=1e-3)
    assert soft[20, 20] == 0
    assert ((soft > 0.1) & (soft < 0.9)).any()


def test_a_field_says_where_each_pixel_comes_from():
    picture = np.zeros((64, 64), np.float32)
    picture[30, 40] = 1
    field = np.zeros((64, 64, 2), np.float32)
    field[..., 0] = 5  # x
    assert np.argwhere(masks.moved(picture, field)).tolist() == [[30, 35]]
    assert (masks.moved(picture, 0 * field) == picture).all()


def test_displacement_is_smooth_and_of_the_strength_asked_for():
    field = masks.displacement(rng(), CANVAS_PX, 0.02)
    assert field.shape == (CANVAS_PX, CANVAS_PX, 2)
    assert 0.3 < field.std() / (0.02 * CANVAS_PX) < 1.5
    assert np.abs(np.diff(field, axis=0)).max() < 1


def test_bending_by_nothing_changes_nothing():
    mask = masks.blob(rng(), CANVAS_PX)
    assert (masks.bend(mask, rng(), strength=0) == mask).all()


def test_holes_are_whole_patches_away_from_the_border():
    shares = []
    for seed in range(40):
        hole = masks.blob(rng(seed), CANVAS_PX)
        assert set(np.unique(hole)) == {0, 1}
        shares.append(hole.mean())
    assert min(shares) > 0.004
    assert max(shares) < 0.16
