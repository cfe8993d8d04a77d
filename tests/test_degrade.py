"""A life on the web: every step does what it says, to both members of a pair alike."""

import cv2
import numpy as np
import pytest
from sitters import portraits

from scanner.training import degrade


def picture():
    return portraits()[0].canvas


def error(treated):
    return float(np.abs(treated.astype(float) - picture()).mean())


@pytest.mark.parametrize("codec", [degrade.jpeg, degrade.webp])
def test_codecs_lose_more_at_lower_quality_and_keep_colours(codec):
    fine, coarse = codec(picture(), 95), codec(picture(), 30)
    assert fine.shape == picture().shape
    assert fine.dtype == np.uint8
    assert 0 < error(fine) < error(coarse) < 12
    red = np.full((32, 32, 3), (200, 30, 30), np.uint8)
    assert np.abs(codec(red, 90).astype(int) - red).max() < 12


@pytest.mark.parametrize("how", [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4])
def test_rescaled_pictures_stay_at_the_new_size(how):
    side = picture().shape[0]
    assert degrade.rescale(picture(), 0.5, how).shape == (side // 2, side // 2, 3)
    assert degrade.rescale(picture(), 1.5, how).shape == (side * 3 // 2, side * 3 // 2, 3)
    assert degrade.rescale(picture(), 0.01, how).shape == (48, 48, 3)


def test_plain_shrinking_averages():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::4] = 255  # sampling every fourth column would see all or nothing
    assert np.abs(degrade.rescale(stripes, 0.25, cv2.INTER_LINEAR).astype(int) - 64).max() <= 1


def test_noise_has_the_strength_asked_for():
    grey = np.full((128, 128, 3), 128, np.uint8)
    noisy = degrade.noise(grey, 5, np.random.default_rng(0)).astype(float)
    assert noisy.std() == pytest.approx(5, rel=0.05)
    assert noisy.mean() == pytest.approx(127.5, abs=0.2)  # the fraction is cut off


@pytest.mark.parametrize("seed", range(12))
def test_one_life_treats_two_pictures_alike(seed):
    life, same = (degrade.draw(np.random.default_rng(seed)) for _ in range(2))
    once = life(picture())
    assert (once == life(picture())).all()
    assert (once == same(picture())).all()
    assert once.dtype == np.uint8
    assert 140 <= once.shape[0] <= 528


def test_lives_differ():
    sides = {degrade.draw(np.random.default_rng(seed))(picture()).shape[0] for seed in range(20)}
    assert len(sides) > 5


def test_strength_is_the_share_of_lives_that_are_lived():
    rng = np.random.default_rng(0)
    assert all((degrade.draw(rng, strength=0)(picture()) == picture()).all() for _ in range(5))
    small = picture()[:48, :48]
    lived = [degrade.draw(rng, strength=0.5)(small) for _ in range(200)]
    touched = np.mean([life.shape != small.shape or (life != small).any() for life in lived])
    assert touched == pytest.approx(0.5 * 0.96, abs=0.12)  # a twentieth of full lives brings nothing either
