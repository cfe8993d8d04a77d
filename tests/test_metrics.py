"""The field's numbers against examples made by hand and against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.training import metrics

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=20)  # few values, so that ties are common


def test_auc_by_hand():
    assert metrics.auc([0, 1], [2, 3]) == 1
    assert metrics.auc([2, 3], [0, 1]) == 0
    assert metrics.auc([1, 1], [1]) == 0.5
    assert metrics.auc([0, 2], [1, 3]) == 0.75


@given(scores, scores)
def test_auc_is_the_share_of_pairs_in_order(real, fake):
    pairs = [(f > r) + 0.5 * (f == r) for f in fake for r in real]
    assert metrics.auc(real, fake) == pytest.approx(np.mean(pairs))
    assert metrics.auc(fake, real) == pytest.approx(1 - np.mean(pairs))


def test_eer_by_hand():
    assert metrics.eer([0, 1], [2, 3]) == 0
    assert metrics.eer([2, 3], [0, 1]) == 1
    assert metrics.eer([0, 1, 2, 5], [3, 4, 6, 1.5]) == 0.25


@given(scores, scores)
def test_eer_is_where_the_two_errors_are_nearest(real, fake):
    real, fake = np.array(real), np.array(fake)
    cuts = [*real, *fake, np.inf]
    both = [(np.mean(real >= cut), np.mean(fake < cut)) for cut in cuts]
    nearest = min(abs(a - b) for a, b in both)
    candidates = [(a + b) / 2 for a, b in both if abs(a - b) <= nearest + 1e-9]
    assert any(metrics.eer(real, fake) == pytest.approx(c) for c in candidates)


@given(scores, st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]))
def test_a_threshold_keeps_its_false_alarm_rate_and_no_lower_one_would(real, rate):
    cut = metrics.threshold_at(real, rate)
    assert np.mean(np.array(real) >= cut) <= rate
    for lower in {r for r in real if r < cut}:
        assert np.mean(np.array(real) >= lower) > rate


def test_wilson_by_hand():
    # 10 of 100: 0.0552 to 0.1744 (Wilson, 1927; any statistics table)
    assert metrics.interval(0.1, 100) == pytest.approx((0.0552, 0.1744), abs=1e-4)
    low, high = metrics.interval(0.0, 50)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0.0714, abs=1e-4)


@given(st.integers(1, 2000), st.data())
def test_wilson_holds_the_share_and_stays_in_0_to_1(n, data):
    share = data.draw(st.integers(0, n)) / n
    low, high = metrics.interval(share, n)
    assert -1e-9 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1 + 1e-9


def test_energy_and_overlap_by_hand():
    mask = np.zeros((4, 4), np.float32)
    mask[:2] = 1
    right = 3 * mask
    assert (metrics.energy_inside(right, mask), metrics.iou(right, mask)) == (1, 1)
    assert (metrics.energy_inside(right[::-1], mask), metrics.iou(right[::-1], mask)) == (0, 0)
    half = np.zeros((4, 4), np.float32)
    half[1:3] = -1
    assert metrics.energy_inside(half, mask) == 0.5  # what counts is how much, of either sign
    assert metrics.iou(-half, mask) == pytest.approx(1 / 3)


def test_maps_and_masks_of_nothing_are_zero_and_not_an_error():
    nothing, something = np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)
    for pair in ((nothing, something), (something, nothing), (nothing, nothing), (-something, something)):
        assert metrics.iou(*pair) == 0
    assert metrics.energy_inside(nothing, something) == metrics.energy_inside(something, nothing) == 0
