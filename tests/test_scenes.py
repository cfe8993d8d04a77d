"""Scenes: holes and splices with exact masks, tiles at the picture's own pixels, pairs as the stream wants them."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from landscapes import photos
from sitters import TINY

from scanner.training import lives, scenes
from scanner.training.data import Pairs, collate, fixed
from scanner.training.families import forged
from scanner.training.portraits import CROP_PX, load, save
from scanner.training.train import TrainConfig, train


def cut(family, seed):
    part = scenes.part_of(photos()[seed % 3], np.random.default_rng(seed))
    return part, forged(part, photos()[(seed + 1) % 3], family, np.random.default_rng(seed), scenes.FAMILIES)


@pytest.mark.parametrize(("family", "seed"), [*itertools.product(scenes.FAMILIES, range(3))])
def test_nothing_changes_outside_the_mask_and_the_same_seed_forges_the_same(family, seed):
    part, forgery = cut(family, seed)
    change = np.abs(forgery.picture.astype(int) - part.canvas).max(2)
    assert change[forgery.mask == 0].max() == 0
    assert change[forgery.mask > 0.9].mean() > 2
    assert 0.003 < forgery.mask.mean() < 0.4
    again = cut(family, seed)[1]
    assert (again.picture == forgery.picture).all()
    assert (again.mask == forgery.mask).all()


@pytest.mark.parametrize("seed", range(12))
def test_holes_are_hard_and_inside(seed):
    hole = scenes.hole(np.random.default_rng(seed), 320)
    assert set(np.unique(hole)) == {0, 1}
    assert 0.003 < hole.mean() < 0.3


@pytest.mark.parametrize("side", [150, 256, 320, 450])
def test_a_window_shows_picture_and_mask_at_the_same_place_and_never_resamples(side):
    rng = np.random.default_rng(side)
    picture = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
    picture[side // 3 : side // 2, side // 3 : side // 2] = 255
    mask = (picture.min(2) == 255).astype(np.float32)
    for _ in range(6):
        window = scenes.Window.draw(rng)
        tile, where = window.of(picture), window.of_mask(mask, side)
        assert tile.shape == (CROP_PX, CROP_PX, 3)
        assert ((tile.min(2) == 255) == (where > 0.5)).all()


@pytest.mark.parametrize("family", scenes.FAMILIES)
def test_a_pair_is_what_the_stream_collates(family):
    rng = np.random.default_rng(0)
    pairs = [scenes.pair(*photos()[:2], family, rng) for _ in range(3)]
    for real, fake in pairs:
        assert (real.family, fake.family, fake.identity) == ("real", family, "photo0")
        assert not real.mask.any()
        assert fake.mask.mean() > 0.003
    x, mask, real = collate([r for r, _ in pairs] + [f for _, f in pairs])
    assert x.shape == (6, 3, CROP_PX, CROP_PX)
    assert mask[3:].amax((1, 2)).min() > 0
    assert real.tolist() == [1, 1, 1, 0, 0, 0]


def test_without_a_web_life_the_pair_differs_in_the_mask_only():
    real, fake = scenes.pair(*photos()[:2], "patch_copy", np.random.default_rng(3), strength=0)
    change = np.abs(real.crop.astype(int) - fake.crop).max(2)
    assert change[fake.mask == 0].max() == 0
    assert change[fake.mask > 0.9].mean() > 2


def test_another_life_can_be_led():
    make = partial(scenes.pair, life=lives.draw)
    assert make(*photos()[:2], "telea", np.random.default_rng(1))[1].mask.any()


def test_scenes_are_kept_in_the_file_of_portraits(tmp_path):
    save(photos(), tmp_path / "scenes.npz")
    for before, after in zip(photos(), load(tmp_path / "scenes.npz"), strict=True):
        assert (after.canvas == before.canvas).all()
        assert after.shape.shape == (0, 2)
        assert after.identity == before.identity


def test_photographs_kept_back_are_never_trained_on():
    held = [replace(photos()[0], source="val", identity=f"p{i}") for i in range(40)]
    assert {scenes.split(scene) for scene in held} == {"val", "test"}
    assert scenes.split(held[0]) == scenes.split(held[0])


def test_the_stream_of_pairs_runs_on_scenes():
    stream = Pairs(photos(), ("telea", "scene_splice"), pairs=2, seed=0, make=scenes.pair)
    x, mask, _ = next(iter(stream))
    assert x.shape == (4, 3, CROP_PX, CROP_PX)
    assert mask[2:].amax((1, 2)).min() > 0
    held = fixed(photos(), ("telea",), per_family=2, seed=0, make=scenes.pair)
    assert [len(held[name]) for name in ("real", "telea")] == [2, 2]


def test_the_loop_trains_on_scenes(tmp_path):
    of_train = [p for p in (replace(photos()[0], identity=f"t{i}") for i in range(9)) if scenes.split(p) == "train"]
    of_val = [
        p for p in (replace(photos()[1], identity=f"v{i}", source="val") for i in range(9)) if scenes.split(p) == "val"
    ]
    config = TrainConfig(
        ("telea",),
        steps=1,
        pairs=2,
        report_steps=1,
        val_steps=1,
        val_per_family=2,
        workers=0,
        subject="scene",
        lives="wide",
        model=TINY,
    )
    train([*of_train, *of_val], config, tmp_path / "run")
    assert "auc_telea" in (tmp_path / "run" / "log.jsonl").read_text()
