"""A judge and untouched canvases in; how well its labels stand, and what they stand on, out.

    flips       how often a label changes when the very same picture is saved or resized again
    shortcuts   real pictures that carry only what often comes with a forgery: tint, blur, noise, another camera's tone
    deletion    forged pixels put back to the original: the verdict must turn real, soonest where the map points

One reason: a score can be right for the wrong reason, and these three show it before somebody else does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.contract import Label
from scanner.detection.lae import Encoder
from scanner.training import degrade, lives, metrics
from scanner.training.calibrate import sigmoid
from scanner.training.data import Sample
from scanner.training.masks import Mask
from scanner.training.portraits import Pixels
from scanner.training.train import score
from scanner.verdict import Calibration

Treatments = Mapping[str, degrade.Treatment]
Cut = Callable[[Pixels], Pixels]
"""How the detector's view is cut out of a canvas of any size."""
GRID = 16  # cells of the attention map along a side of the crop


@dataclass(frozen=True)
class Case:
    """One canvas to be treated: a photograph, or a forgery with its original and mask."""

    canvas: Pixels  # (S, S, 3)
    family: str  # "real" for a real one
    original: Pixels
    mask: Mask  # (S, S) 0..1


def labels(raw: NDArray[np.floating[Any]], calibration: Calibration) -> list[Label]:
    """The label that each raw score would get."""
    p = sigmoid(calibration.slope * np.asarray(raw, np.float64) + calibration.intercept)
    return [
        Label.MANIPULATED if v >= calibration.manipulated else Label.AUTHENTIC if v <= calibration.authentic
        else Label.INCONCLUSIVE
        for v in p
    ]  # fmt: skip


def raw_scores(encoder: Encoder, crops: Sequence[Pixels]) -> NDArray[np.float64]:
    """Raw scores (N,) of crops."""
    empty = np.zeros(crops[0].shape[:2], np.float32)
    return score(encoder, [Sample(np.ascontiguousarray(crop), empty, "", "") for crop in crops])[0].astype(np.float64)


def flips(
    encoder: Encoder, calibration: Calibration, cases: Sequence[Case], treatments: Treatments, cut: Cut
) -> dict[str, Any]:
    """How the labels of untouched canvases fare under each treatment.

    `turned`: share of confident labels that become the other one; `doubted`: that become inconclusive.
    """
    before = labels(raw_scores(encoder, [cut(case.canvas) for case in cases]), calibration)
    sure = [at for at, label in enumerate(before) if label is not Label.INCONCLUSIVE]
    rows: dict[str, Any] = {"n": len(cases), "confident": len(sure), "treatments": {}}
    turned = doubted = 0
    for name, treatment in treatments.items():
        if not sure:
            break
        after = labels(raw_scores(encoder, [cut(treatment(cases[at].canvas)) for at in sure]), calibration)
        lost = sum(label is Label.INCONCLUSIVE for label in after)
        changed = sum(label is not before[at] for label, at in zip(after, sure, strict=True)) - lost
        turned, doubted = turned + changed, doubted + lost
        rows["treatments"][name] = {"turned": _share(changed, len(sure)), "doubted": _share(lost, len(sure))}
    asked = len(sure) * len(treatments)
    return {**rows, "turned": _share(turned, asked), "doubted": _share(doubted, asked)}


def shortcuts(encoder: Encoder, calibration: Calibration, reals: Sequence[Case], cut: Cut) -> dict[str, Any]:
    """Share of real canvases called manipulated under each thing that is no forgery, with its 95 % interval."""
    rows = {}
    for name, treatment in SHORTCUTS.items():
        found = labels(raw_scores(encoder, [cut(treatment(case.canvas)) for case in reals]), calibration)
        share = sum(label is Label.MANIPULATED for label in found) / len(reals)
        low, high = metrics.interval(share, len(reals))
        rows[name] = {"n": len(reals), "share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}
    return rows


def deletion(
    encoder: Encoder, calibration: Calibration, fakes: Sequence[Case], cut: Cut, rng: Generator
) -> dict[str, Any]:
    """What is left of the evidence when pixels of forgeries called manipulated are put back.

    `turned`: share no longer called manipulated once all of it is the original again. `fell_hot`, `fell_elsewhere`:
    mean fall of the raw score when the quarter of the forged cells under the strongest map is put back, or another
    quarter of them: where the map is evidence and not decoration, the first is larger.
    """
    pairs = [(cut(case.canvas), cut(case.original)) for case in fakes]
    raw, maps = score(encoder, [Sample(f, np.zeros(f.shape[:2], np.float32), "", "") for f, _ in pairs])
    sure = [at for at, label in enumerate(labels(raw, calibration)) if label is Label.MANIPULATED]
    if not sure:
        return {"n": 0, "turned": None, "fell_hot": None, "fell_elsewhere": None}
    hot, cold = zip(*(_cells(pairs[at], maps[at], rng) for at in sure), strict=True)
    restored = raw_scores(encoder, [pairs[at][1] for at in sure])
    falls = [
        raw[sure] - raw_scores(encoder, [_put_back(*pairs[at], cells) for at, cells in zip(sure, chosen, strict=True)])
        for chosen in (hot, cold)
    ]
    kept = sum(label is Label.MANIPULATED for label in labels(restored, calibration))
    return {
        "n": len(sure),
        "turned": _share(len(sure) - kept, len(sure)),
        "fell_whole": round(float((raw[sure] - restored).mean()), 4),
        "fell_hot": round(float(falls[0].mean()), 4),
        "fell_elsewhere": round(float(falls[1].mean()), 4),
    }


def _cells(pair: tuple[Pixels, Pixels], attention: NDArray[np.float32], rng: Generator) -> tuple[Mask, Mask]:
    """A quarter of the forged cells, those under the strongest map, and as many others; (GRID, GRID) of 0 and 1."""
    changed = np.abs(pair[0].astype(np.int16) - pair[1]).max(2) > 2
    forged = np.flatnonzero(cv2.resize(changed.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA) > 0.1)
    count = max(1, len(forged) // 4)
    ranked = forged[np.argsort(-attention.ravel()[forged])]
    return _grid(ranked[:count]), _grid(rng.permutation(ranked[count:])[:count])


def _grid(cells: NDArray[np.intp]) -> Mask:
    grid = np.zeros(GRID * GRID, np.float32)
    grid[cells] = 1
    return grid.reshape(GRID, GRID)


def _put_back(fake: Pixels, original: Pixels, cells: Mask) -> Pixels:
    """The fake with some cells of the original, softly, for a hard edge would be a forgery of its own."""
    alpha = cv2.GaussianBlur(cv2.resize(cells, fake.shape[:2], interpolation=cv2.INTER_NEAREST), (0, 0), 3)
    return np.asarray(cv2.blendLinear(original, fake, alpha, 1 - alpha), np.uint8)


def _tinted(picture: Pixels, *, gains: tuple[float, float, float]) -> Pixels:
    return np.clip(picture * np.array(gains, np.float32), 0, 255).astype(np.uint8)


def _toned(picture: Pixels, *, gamma: float) -> Pixels:
    return np.asarray(cv2.LUT(picture, (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)), np.uint8)


def _grainy(picture: Pixels) -> Pixels:
    return degrade.noise(picture, 4.0, np.random.default_rng(0))


def _sharpened(picture: Pixels) -> Pixels:
    soft = cv2.GaussianBlur(picture, (0, 0), 1.2)
    return np.asarray(cv2.addWeighted(picture, 1.6, soft, -0.6, 0), np.uint8)


SHORTCUTS: dict[str, degrade.Treatment] = {
    "warm tint": partial(_tinted, gains=(1.12, 1.0, 0.88)),
    "cold tint": partial(_tinted, gains=(0.9, 1.0, 1.1)),
    "brighter": partial(_toned, gamma=0.75),
    "darker": partial(_toned, gamma=1.35),
    "grey": lives.grey,
    "blurred": lambda p: np.asarray(cv2.GaussianBlur(p, (0, 0), 1.2), np.uint8),
    "sharpened": _sharpened,
    "grainy": _grainy,
    "jpeg 50 twice": lambda p: degrade.jpeg(degrade.jpeg(p, 50), 50),
}
"""Things that happen to real pictures and are no forgery; sharpening is no part of training either."""


def _share(count: int, of: int) -> float | None:
    return round(count / of, 4) if of else None
