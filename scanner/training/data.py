"""Portraits in, batches of real/fake pairs with masks out, forged on the fly.

Both members of a pair come from the same photograph and pass through the same kind of web life, so that identity, camera and
compression tell nothing.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import IterableDataset

from scanner.training import degrade
from scanner.training.forge import forge
from scanner.training.masks import Mask
from scanner.training.portraits import CANVAS_PX, CROP_PX, MARGIN_PX, Pixels, Portrait


@dataclass(frozen=True)
class Sample:
    """One crop as the detector sees it."""

    crop: Pixels  # (CROP_PX, CROP_PX, 3)
    mask: Mask  # (CROP_PX, CROP_PX), all zero for a real one
    family: str  # "real" for a real one
    identity: str


def view(picture: Pixels, mask: Mask, rng: Generator, *, jitter: float = 1.0) -> tuple[Pixels, Mask]:
    """The crop of a canvas at any resolution: rotated, scaled and moved as an imperfect alignment would, maybe mirrored."""
    scale = float(np.exp(rng.uniform(-0.08, 0.08) * jitter))
    matrix = cv2.getRotationMatrix2D((CANVAS_PX / 2, CANVAS_PX / 2), float(rng.uniform(-7, 7)) * jitter, scale)
    matrix[:, 2] += rng.uniform(-0.04, 0.04, 2) * CROP_PX * jitter - MARGIN_PX
    flip = jitter > 0 and rng.random() < 0.5
    return _warp(picture, matrix, flip=flip), _warp(mask, matrix, flip=flip)


def _warp(picture: Pixels | Mask, matrix: np.ndarray, *, flip: bool) -> np.ndarray:
    """`picture` shows the canvas at its own size; `matrix` speaks in canvas px."""
    zoom = CANVAS_PX / picture.shape[0]
    if zoom < 0.66:
        picture = np.asarray(cv2.resize(picture, (CANVAS_PX, CANVAS_PX), interpolation=cv2.INTER_AREA))
        zoom = 1.0
    to_canvas = np.array([[zoom, 0, (zoom - 1) / 2], [0, zoom, (zoom - 1) / 2], [0, 0, 1]])
    border = cv2.BORDER_REFLECT_101
    out = cv2.warpAffine(picture, matrix @ to_canvas, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR, borderMode=border)
    return out[:, ::-1] if flip else out


def pair(
    portrait: Portrait, donor: Portrait, family: str, rng: Generator, *, strength: float = 1.0
) -> tuple[Sample, Sample]:
    """A real and a forged sample of one photograph; half of the time with the very same web life."""
    forgery = forge(portrait, donor, family, rng)
    life = degrade.draw(rng, strength=strength)
    other_life = life if rng.random() < 0.5 else degrade.draw(rng, strength=strength)
    crop, _ = view(life(portrait.canvas), forgery.mask, rng)
    fake_crop, fake_mask = view(other_life(forgery.picture), forgery.mask, rng)
    return (
        Sample(crop, np.zeros_like(fake_mask), "real", portrait.identity),
        Sample(fake_crop, fake_mask, family, portrait.identity),
    )


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """Samples -> x (B, 3, H, W) uint8, mask (B, 64, 64) float 0..1, real (B,) float 1 = real."""
    x = torch.from_numpy(np.stack([s.crop for s in samples])).permute(0, 3, 1, 2)
    small = [cv2.resize(s.mask, (64, 64), interpolation=cv2.INTER_AREA) for s in samples]
    real = torch.tensor([float(s.family == "real") for s in samples])
    return x, torch.from_numpy(np.stack(small)).float(), real


class Pairs(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """An endless stream of batches: `pairs` reals and their forgeries, families drawn evenly.

    Sources are drawn by the square root of their size, so that the largest does not decide what a face looks like.
    """

    def __init__(
        self,
        portraits: Sequence[Portrait],
        families: Sequence[str],
        *,
        pairs: int,
        seed: int,
        begin: int = 0,
        easy_steps: int = 0,
    ) -> None:
        """`begin` is the step to go on from; degradation grows from none to full over `easy_steps`."""
        super().__init__()
        self.portraits, self.families, self.pairs, self.seed = portraits, tuple(families), pairs, seed
        self.begin, self.easy_steps = begin, easy_steps
        sources = np.array([p.source for p in portraits])
        _, inverse, count = np.unique(sources, return_inverse=True, return_counts=True)
        weight = 1 / np.sqrt(count[inverse])
        self.weight = weight / weight.sum()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        cv2.setNumThreads(0)
        worker = torch.utils.data.get_worker_info()
        rank, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        rng = np.random.default_rng([self.seed, self.begin, rank])
        for step in itertools.count(self.begin + rank, workers):
            strength = min(1.0, step / self.easy_steps) if self.easy_steps else 1.0
            reals, fakes = [], []
            for index in rng.choice(len(self.portraits), self.pairs, p=self.weight):
                donor = self.portraits[int(rng.integers(len(self.portraits)))]
                family = str(rng.choice(self.families))
                real, fake = pair(self.portraits[index], donor, family, rng, strength=strength)
                reals.append(real)
                fakes.append(fake)
            yield collate(reals + fakes)


def fixed(
    portraits: Sequence[Portrait], families: Sequence[str], *, per_family: int, seed: int
) -> dict[str, list[Sample]]:
    """A set that never changes, by family (and "real"), for validation and test: `per_family` pairs of each."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Sample]] = {"real": []}
    for family in families:
        order = rng.permutation(np.resize(np.arange(len(portraits)), per_family))
        pairs = [pair(portraits[i], portraits[int(rng.integers(len(portraits)))], family, rng) for i in order]
        found["real"] += [real for real, _ in pairs]
        found[family] = [fake for _, fake in pairs]
    return found
