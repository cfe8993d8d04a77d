"""Scores and labels in, the field's numbers out: AUC, EER, accuracy, false alarms."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auc(real: ArrayLike, fake: ArrayLike) -> float:
    """P(a fake scores above a real one), ties counted half (Mann-Whitney)."""
    r, f = np.sort(np.asarray(real, np.float64)), np.asarray(fake, np.float64)
    below = np.searchsorted(r, f, "left") + np.searchsorted(r, f, "right")
    return float(below.mean() / (2 * len(r)))


def eer(real: ArrayLike, fake: ArrayLike) -> float:
    """Equal error rate: where the false alarm rate meets the miss rate."""
    r, f = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    cuts = np.unique(np.concatenate([r, f, [np.inf]]))
    false_alarms, misses = rates(r, cuts), 1 - rates(f, cuts)
    best = int(np.argmin(np.abs(false_alarms - misses)))
    return float((false_alarms[best] + misses[best]) / 2)


def rates(scores: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of scores at or above each cut."""
    return 1 - np.searchsorted(np.sort(scores), cuts, "left") / len(scores)


def threshold_at(real: ArrayLike, false_alarm_rate: float) -> float:
    """The lowest cut with at most this share of reals at or above it."""
    r = np.sort(np.asarray(real, np.float64))
    allowed = int(np.floor(false_alarm_rate * len(r)))
    return float(np.nextafter(r[len(r) - 1 - allowed], np.inf)) if allowed < len(r) else -np.inf


def interval(share: float, n: int, *, z: float = 1.96) -> tuple[float, float]:
    """95 % Wilson interval of a share seen on n trials."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return centre - half, centre + half


def energy_inside(attention_map: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """Share of |M| inside the mask; both (h, w)."""
    total = float(np.abs(attention_map).sum())
    return float(np.abs(attention_map * (mask > 0.5)).sum()) / total if total else 0.0


def iou(attention_map: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """Intersection over union at half of the map's maximum; both (h, w)."""
    hot = attention_map > 0.5 * attention_map.max() if attention_map.max() > 0 else np.zeros(mask.shape, bool)
    union = (hot | (mask > 0.5)).sum()
    return float((hot & (mask > 0.5)).sum() / union) if union else 0.0


def accuracy(real: ArrayLike, fake: ArrayLike, cut: float) -> float:
    """Share judged right when a score above `cut` means fake, both classes weighing the same."""
    r, f = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    return float(((r <= cut).mean() + (f > cut).mean()) / 2)


def best_threshold(real: ArrayLike, fake: ArrayLike) -> float:
    """The cut with the highest accuracy, in the middle of the widest gap that has it."""
    r, f = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    scores = np.unique(np.concatenate([r, f]))
    cuts = np.concatenate([[scores[0] - 1], (scores[1:] + scores[:-1]) / 2, [scores[-1] + 1]])
    right = (np.searchsorted(np.sort(r), cuts, "right") / len(r) + rates(f, np.nextafter(cuts, np.inf))) / 2
    gaps = np.concatenate([[0], np.diff(scores), [0]])
    best = np.flatnonzero(right >= right.max() - 1e-12)
    return float(cuts[best[int(np.argmax(gaps[best]))]])
