"""Calibration: probabilities that are probabilities, thresholds that keep their promises."""

import numpy as np
import pytest

from scanner.training.calibrate import FALSE_ALARMS, MISSES, calibrate, logistic


def drawn(gap=1.0, spread=1.0, count=2000):
    rng = np.random.default_rng(0)
    return rng.normal(-gap, spread, count), rng.normal(gap, spread, count), rng.normal(-gap, 1.3 * spread, count)


def probability(raw, calibration):
    return 1 / (1 + np.exp(-(calibration.slope * raw + calibration.intercept)))


def test_two_bells_have_a_known_answer():
    slope, intercept = logistic(*drawn()[:2])  # log of the ratio of the densities N(1, 1) and N(-1, 1): 2x
    assert slope == pytest.approx(2, rel=0.1)
    assert intercept == pytest.approx(0, abs=0.1)


def test_classes_weigh_the_same_whatever_their_size():
    real, fake, _ = drawn()
    few = logistic(real, fake[:500])
    assert few == pytest.approx(logistic(real, fake), abs=0.2)


def test_the_answer_follows_scale_and_shift():
    real, fake, _ = drawn()
    slope, intercept = logistic(real, fake)
    scaled, shifted = logistic(10 * real + 3, 10 * fake + 3)
    assert scaled == pytest.approx(slope / 10, rel=1e-3)
    assert shifted == pytest.approx(intercept - 3 * slope / 10, abs=1e-3)


@pytest.mark.parametrize("spread", [0.5, 0.01, 0.0])
def test_a_separable_set_stays_finite(spread):
    real, fake, _ = drawn(spread=spread, count=200)
    slope, intercept = logistic(real, fake)
    assert 1 < slope < 20
    assert abs(intercept) < 1


def test_the_alarm_is_set_by_reencoded_photographs_and_the_all_clear_by_forgeries():
    real, fake, alarm = drawn()
    calibration = calibrate(real, fake, alarm)
    assert np.mean(probability(alarm, calibration) >= calibration.manipulated) == pytest.approx(FALSE_ALARMS, abs=1e-3)
    assert np.mean(probability(fake, calibration) <= calibration.authentic) == pytest.approx(MISSES, abs=2e-3)


def test_false_alarms_are_never_more_than_promised_and_a_call_is_never_below_even_odds():
    real, fake, _ = drawn(spread=0.3)
    calibration = calibrate(real, fake, real - 1)  # photographs that raise no alarm at all
    assert calibration.manipulated == 0.5
    assert calibration.authentic <= calibration.manipulated


def test_hopeless_scores_leave_nothing_below_the_alarm_out_of_order():
    real, fake, alarm = drawn(gap=0.05)
    calibration = calibrate(real, fake, alarm)
    assert 0 < calibration.authentic <= calibration.manipulated < 1


def test_a_model_that_ranks_backwards_cannot_be_calibrated():
    real, fake, alarm = drawn()
    with pytest.raises(ValueError, match="slope"):
        calibrate(fake, real, alarm)


def test_the_alarm_heeds_the_real_crops_too_where_photographs_are_few():
    real, fake, _ = drawn()
    calibration = calibrate(real, fake, real[:40] - 1)
    assert np.mean(probability(real, calibration) >= calibration.manipulated) == pytest.approx(FALSE_ALARMS, abs=1e-3)
