"""Video frames are read by number; codecs and screenshots treat both members of a pair alike."""

import numpy as np
import pytest
from media import shade_frames
from sitters import portraits

from scanner.training import clips, lives

SHADES = list(shade_frames(12, 64, 48))


def picture():
    return portraits()[0].canvas


def error(treated, original):
    return float(np.abs(treated.astype(float) - original).mean())


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "shades.mp4"
    clips.write(path, SHADES)
    return path


def test_frames_come_by_their_number(video):
    assert clips.count(video) == 12
    found = clips.frames(video, [0, 5, 11, 40])
    assert sorted(found) == [0, 5, 11]
    for number, frame in found.items():
        assert (frame.shape, frame.dtype) == ((48, 64, 3), np.uint8)
        assert error(frame, SHADES[number]) < 6
        assert error(frame, SHADES[number]) < error(frame, SHADES[(number + 3) % 12])


@pytest.mark.parametrize(("length", "wanted", "numbers"), [(10, 2, [2, 7]), (3, 9, [0, 1, 2]), (1, 1, [0]), (0, 4, [])])
def test_frames_are_spread_evenly(length, wanted, numbers):
    assert clips.evenly(length, wanted) == numbers


@pytest.mark.parametrize("shape", [(352, 352), (101, 65)])
def test_h264_loses_more_at_a_higher_factor_and_keeps_the_size(shape):
    original = picture()[: shape[0], : shape[1]]
    fine, coarse = clips.h264(original, 20), clips.h264(original, 38)
    assert (fine.shape, fine.dtype) == (original.shape, np.uint8)
    assert 0 < error(fine, original) < error(coarse, original) < 12


def test_a_screenshot_keeps_the_place_of_every_pixel_and_changes_its_value():
    shown = lives.screenshot(picture(), factor=1.0, gamma=0.9, page=255, offset=(11, 17))
    assert shown.shape == (400, 400, 3)
    assert (shown[0] == 255).all()
    inner = shown[11 : 11 + 352, 17 : 17 + 352]
    curve = (255 * (picture() / 255) ** 0.9).round()
    assert error(inner, curve) < 0.6
    assert error(inner, picture()) > 1


@pytest.mark.parametrize("seed", range(8))
def test_one_screenshot_treats_two_pictures_alike_and_stays_square(seed):
    once, again = (lives.draw_screenshot(np.random.default_rng(seed))(picture()) for _ in range(2))
    assert (once == again).all()
    assert once.shape[0] == once.shape[1]
    assert 0.59 * 352 <= once.shape[0] <= 1.41 * 352


def test_lives_include_video_and_screenshots_and_no_strength_means_none(monkeypatch):
    used = []
    real = clips.h264
    monkeypatch.setattr(clips, "h264", lambda p, crf: used.append(crf) or real(p, crf))
    small = picture()[:96, :96]
    for seed in range(40):
        life = lives.draw(np.random.default_rng(seed))
        assert (life(small) == life(small)).all()
    assert 4 <= len(used) <= 24  # two of each that was drawn: 40 / 7 lives
    rng = np.random.default_rng(0)
    assert all((lives.draw(rng, strength=0)(small) == small).all() for _ in range(5))


def test_tones_are_the_same_for_both_of_a_pair_and_most_pictures_keep_theirs():
    kept = grey = 0
    for seed in range(200):
        tone = lives.draw_tone(np.random.default_rng(seed))
        toned = tone(picture())
        assert (toned.shape, toned.dtype) == (picture().shape, np.uint8)
        assert np.array_equal(toned, tone(picture()))
        assert error(toned, picture()) < 60
        kept += np.array_equal(toned, picture())
        grey += not np.ptp(toned, axis=2).any()
    assert 90 < kept < 145  # 7 of 12
    assert 12 < grey < 40  # 1 of 8


def test_without_strength_no_tone_changes():
    assert all(
        np.array_equal(lives.draw_tone(np.random.default_rng(seed), strength=0.0)(picture()), picture())
        for seed in range(20)
    )
