"""One trained method and a task in, its numbers out: the threshold from seen validation, then seen and unseen test.

One reason: what is unseen is looked at only here, when everything has been decided.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner.training import degrade, metrics
from scanner.training.batches import NO_MASK, opened
from scanner.training.calibrate import logistic, sigmoid
from scanner.training.data import Sample
from scanner.training.masks import Mask
from scanner.training.methods import Method
from scanner.training.portraits import Pixels
from scanner.training.stage import Watched, watch
from scanner.training.subjects import REENCODINGS
from scanner.training.tasks import Item, TaskData

Numbers = dict[str, float]
ENOUGH = 100  # real pictures for each treatment, fakes for the deletion test: standard error 3 points at 10 %


def tinted(picture: Pixels) -> Pixels:
    """A warmer picture: gain 1.12, 1.0, 0.88."""
    return np.asarray(np.clip(picture * np.array([1.12, 1.0, 0.88]), 0, 255), np.uint8)


def blurred(picture: Pixels) -> Pixels:
    """Gaussian blur, sigma 1.2 px."""
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.2), np.uint8)


def noisy(picture: Pixels) -> Pixels:
    """Gaussian noise, 5 grey levels: another camera."""
    return degrade.noise(picture, 5.0, np.random.default_rng(0))


TREATMENTS: dict[str, degrade.Treatment] = {**REENCODINGS, "tinted": tinted, "blurred": blurred, "noisy": noisy}
"""What happens to real pictures without making them fakes: each of them could have become a shortcut."""


@dataclass(frozen=True)
class Measured:
    """One arm and seed."""

    threshold: float  # best on seen validation
    slope: float  # P(fake) = sigmoid(slope * raw + intercept), fitted on seen validation
    intercept: float
    numbers: Numbers  # by "set/number", see `numbers_of`
    alarms: Numbers  # share of real test pictures called fake, by treatment
    scores: dict[str, Watched]  # of "seen" and "unseen"

    def probability(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated P(fake)."""
        return sigmoid(self.slope * raw + self.intercept)


def measure(method: Method, data: TaskData) -> Measured:
    """Threshold and calibration from seen validation; then everything else, in that order."""
    val = look(method, data.seen.val)
    is_real = np.array([item.is_real for item in data.seen.val])
    cut = metrics.best_threshold(val.raw[is_real], val.raw[~is_real])
    slope, intercept = logistic(val.raw[is_real], val.raw[~is_real])
    numbers: Numbers = {}
    scores: dict[str, Watched] = {}
    for name, items in (("seen", data.seen.test), ("unseen", data.unseen.measured)):
        scores[name] = look(method, items)
        found = numbers_of(items, scores[name], cut) | _of_maps(items, scores[name]) | deletion(method, items, cut)
        numbers |= {f"{name}/{key}": value for key, value in found.items()}
    return Measured(cut, slope, intercept, numbers, alarms(method, data.seen.test, cut), scores)


def look(method: Method, items: Sequence[Item]) -> Watched:
    """Scores and maps of items."""
    return watch(method, len(items), lambda index: opened(items[index]))


def numbers_of(items: Sequence[Item], watched: Watched, cut: float) -> Numbers:
    """Accuracy at the cut and at the built-in rule, AUC, EER, each class; by video, too, where there are any."""
    found = _of_scores([item.family for item in items], watched.raw, cut)
    videos = sorted({(item.group, item.family) for item in items})
    if len(videos) < len(items) and any(item.group != item.identity for item in items):
        place = {video: number for number, video in enumerate(videos)}
        which = np.array([place[item.group, item.family] for item in items])
        pooled = np.bincount(which, watched.raw) / np.bincount(which)
        of_videos = _of_scores([family for _, family in videos], pooled, cut)
        found |= {f"video_{key}": of_videos[key] for key in ("accuracy", "auc")}
    return found


def _of_scores(families: Sequence[str], raw: NDArray[np.float64], cut: float) -> Numbers:
    of = np.array(families)
    real, fake = raw[of == "real"], raw[of != "real"]
    right = {str(f): float((raw[of == f] > cut).mean()) for f in np.unique(of) if f != "real"}
    return {
        "accuracy": metrics.accuracy(real, fake, cut),
        "accuracy_rule": metrics.accuracy(real, fake, 0.0),
        "auc": metrics.auc(real, fake),
        "eer": metrics.eer(real, fake),
        "right_real": float((real <= cut).mean()),
        **{f"right_{family}": share for family, share in right.items()},
    }


def _of_maps(items: Sequence[Item], watched: Watched) -> Numbers:
    """How well maps sit on masks, over fakes that have both."""
    if watched.maps is None:
        return {}
    inside, overlap = [], []
    for item, found in zip(items, watched.maps, strict=True):
        if item.mask is not None and not item.is_real:
            mask = np.asarray(cv2.resize(item.mask(), found.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)
            inside.append(metrics.energy_inside(found, mask))
            overlap.append(metrics.iou(found, mask))
    return {"energy_inside": float(np.mean(inside)), "iou": float(np.mean(overlap))} if inside else {}


def put_back(fake: Pixels, original: Pixels, mask: Mask, *, reach_px: int = 9) -> Pixels:
    """The fake with its forged pixels, and what compression smeared around them, set back to the original."""
    wide = cv2.dilate((mask > 0).astype(np.uint8), np.ones((reach_px, reach_px), np.uint8))
    return np.where(wide[..., None] > 0, original, fake).astype(np.uint8)


def deletion(method: Method, items: Sequence[Item], cut: float) -> Numbers:
    """Of the fakes that were caught: how many turn real once the forged pixels are put back.

    And in how many a_F, which is the mean of the map, falls along with the score.  Nothing where no original is known.
    """
    reals = {item.name: item for item in items if item.is_real}
    chosen = [i for i in items if not i.is_real and i.mask is not None and i.source in reals][:: _stride(items)]
    if not chosen:
        return {}
    before = look(method, chosen)

    def restored(index: int) -> Sample:
        item = chosen[index]
        mask = item.mask() if item.mask else NO_MASK
        return Sample(put_back(item.crop(), reals[item.source].crop(), mask), NO_MASK, "", "")

    after = watch(method, len(chosen), restored)
    caught = before.raw > cut
    if not caught.any():
        return {}
    found = {"deletion_turned": float((after.raw <= cut)[caught].mean())}
    if before.maps is not None:
        both = (after.a_fake < before.a_fake) & (after.raw < before.raw)
        found["deletion_agrees"] = float(both[caught].mean())
    return found


def alarms(method: Method, items: Sequence[Item], cut: float) -> Numbers:
    """Share of real pictures called fake, untouched and after each treatment, by its name."""
    reals = [item for item in items if item.is_real]
    reals = reals[:: _stride(reals)]

    def treated(treatment: degrade.Treatment) -> Callable[[int], Sample]:
        return lambda index: Sample(_as_large(treatment(crop := reals[index].crop()), crop), NO_MASK, "", "")

    return {
        name: float((watch(method, len(reals), treated(treatment)).raw > cut).mean())
        for name, treatment in TREATMENTS.items()
    }


def _stride(items: Sequence[Item]) -> int:
    return max(1, len(items) // ENOUGH)


def _as_large(picture: Pixels, as_this: Pixels) -> Pixels:
    if picture.shape == as_this.shape:
        return picture
    how = cv2.INTER_AREA if picture.shape[0] > as_this.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, as_this.shape[1::-1], interpolation=how), np.uint8)
