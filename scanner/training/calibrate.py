"""Raw validation scores in, `Calibration` out: a logistic fit and the two thresholds.

The upper threshold is chosen by what a wrong "manipulated" costs: at most `FALSE_ALARMS` of re-encoded real validation
photographs may reach it, nor more of the real crops that forgeries were made from: these are of more people.
The lower one is chosen by what a wrong "authentic" costs: at most `MISSES` of validation forgeries may fall to it.
Between them the verdict is `inconclusive`.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scanner.training import metrics
from scanner.verdict import Calibration

FALSE_ALARMS = 0.02
MISSES = 0.10


def logistic(real: ArrayLike, fake: ArrayLike, *, steps: int = 50) -> tuple[float, float]:
    """Slope and intercept of P(fake) = sigmoid(slope * raw + intercept), both classes weighing the same (Platt, 1999).

    Newton's method on the two parameters; Platt's smoothed targets keep a separable set finite.
    """
    r, f = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    x = np.concatenate([r, f])
    target = np.concatenate([np.full(len(r), 1 / (len(r) + 2)), np.full(len(f), (len(f) + 1) / (len(f) + 2))])
    weight = np.concatenate([np.full(len(r), 0.5 / len(r)), np.full(len(f), 0.5 / len(f))])
    design = np.stack([x, np.ones_like(x)], 1)  # (N, 2)
    beta = np.zeros(2)
    for _ in range(steps):
        p = sigmoid(design @ beta)
        gradient = design.T @ (weight * (p - target))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        beta -= np.linalg.solve(curvature, gradient)
    return float(beta[0]), float(beta[1])


def calibrate(real: ArrayLike, fake: ArrayLike, real_reencoded: ArrayLike) -> Calibration:
    """Fit on validation scores; `real_reencoded` (photographs saved again) and `real` both bound the false alarms."""
    slope, intercept = logistic(real, fake)
    photos, crops, f = (sigmoid(slope * np.asarray(s, np.float64) + intercept) for s in (real_reencoded, real, fake))
    strictest = max(metrics.threshold_at(reals, FALSE_ALARMS) for reals in (photos, crops))
    manipulated = float(np.clip(strictest, 0.5, 1 - 1e-9))
    authentic = float(np.clip(np.quantile(f, MISSES), 0.001, manipulated))
    return Calibration(slope=slope, intercept=intercept, authentic=authentic, manipulated=manipulated)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow: beyond 60 it is 0 or 1 to 26 digits."""
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -60, 60))), np.float64)
