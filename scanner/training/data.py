"""Portraits in, batches of real/fake pairs with masks out, forged on the fly.

Both members of a pair come from the same photograph and pass through the same kind of web life, so that identity,
camera and compression tell nothing.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from scanner.detection.faces import sample
from scanner.training import degrade
from scanner.training.families import OF_ONE_PERSON, cast, donor_for, forged
from scanner.training.lives import Life
from scanner.training.masks import Mask
from scanner.training.portraits import CANVAS_PX, CROP_PX, MARGIN_PX, Pixels, Portrait


@dataclass(frozen=True)
class Sample:
    """One crop as the detector sees it."""

    crop: Pixels  # (CROP_PX, CROP_PX, 3)
    mask: Mask  # (CROP_PX, CROP_PX), all zero for a real one
    family: str  # "real" for a real one
    identity: str


@dataclass(frozen=True)
class View:
    """How an imperfect alignment would see a canvas: rotated, scaled and moved a little, maybe mirrored."""

    matrix: NDArray[np.float64]  # (2, 3) canvas px -> crop px
    flip: bool

    @classmethod
    def draw(cls, rng: Generator) -> "View":
        """A random view."""
        scale, angle = float(np.exp(rng.uniform(-0.08, 0.08))), float(rng.uniform(-7, 7))
        matrix = np.asarray(cv2.getRotationMatrix2D((CANVAS_PX / 2, CANVAS_PX / 2), angle, scale), np.float64)
        matrix[:, 2] += rng.uniform(-0.04, 0.04, 2) * CROP_PX - MARGIN_PX
        return cls(matrix, bool(rng.random() < 0.5))

    def of(self, canvas: Pixels) -> Pixels:
        """The crop of a canvas that may have been resized on its way, sampled as `faces.align` samples a frame."""
        to_canvas = cv2.invertAffineTransform(self.matrix)  # crop px -> canvas px, both counted from pixel centres
        to_canvas[:, 2] += 0.5 - 0.5 * to_canvas[:, :2].sum(1)  # ... now from pixel corners
        crop_to_frame = to_canvas @ np.diag([CROP_PX, CROP_PX, 1.0]) * (canvas.shape[0] / CANVAS_PX)
        crop = sample(canvas, crop_to_frame)
        return np.asarray(crop[:, ::-1] if self.flip else crop, np.uint8)

    def of_mask(self, mask: Mask) -> Mask:
        """The crop of a mask of the canvas."""
        out = cv2.warpAffine(mask, self.matrix, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR)
        return np.asarray(out[:, ::-1] if self.flip else out, np.float32)


Make = Callable[..., tuple[Sample, Sample]]
"""How a canvas becomes a pair: `pair` below for faces, `scenes.pair` for photographs of anything."""


def pair(
    portrait: Portrait,
    donor: Portrait,
    family: str,
    rng: Generator,
    *,
    strength: float = 1.0,
    life: Life = degrade.draw,
) -> tuple[Sample, Sample]:
    """A real and a forged sample of one photograph in the same view, three times of four with the very same web life.

    All that differs is then the forgery: the two gradients cancel but for it. `life` may also be `lives.draw`.
    """
    forgery = forged(portrait, donor, family, rng)
    lived = life(rng, strength=strength)
    other_life = lived if rng.random() < 0.75 else life(rng, strength=strength)
    view = View.draw(rng)
    crop, fake_crop = view.of(lived(portrait.canvas)), view.of(other_life(forgery.picture))
    fake_mask = view.of_mask(forgery.mask)
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

    def __init__(  # noqa: PLR0913 - all but two by name, most with a default
        self,
        portraits: Sequence[Portrait],
        families: Sequence[str],
        *,
        pairs: int,
        seed: int,
        begin: int = 0,
        easy_steps: int = 0,
        make: Make = pair,
    ) -> None:
        """`begin` is the step to go on from; degradation grows from none to full over `easy_steps`."""
        super().__init__()
        self.make = make
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
                portrait, family = self.portraits[index], str(rng.choice(self.families))
                portrait, donor = cast(portrait, self.portraits, family, rng)
                real, fake = self.make(portrait, donor, family, rng, strength=strength)
                reals.append(real)
                fakes.append(fake)
            yield collate(reals + fakes)


def fixed(
    portraits: Sequence[Portrait], families: Sequence[str], *, per_family: int, seed: int, make: Make = pair
) -> dict[str, list[Sample]]:
    """A set that never changes, by family (and "real"), for validation and test: `per_family` pairs of each."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[Sample]] = {"real": []}
    for family in families:
        donors = {i: donor for i, p in enumerate(portraits) if (donor := donor_for(p, portraits, family, rng))}
        if not donors and family in OF_ONE_PERSON:
            msg = f"{family} needs two pictures of one person, and these portraits have none"
            raise ValueError(msg)
        donors = donors or dict(enumerate(portraits))  # one person alone: most families need no donor
        order = rng.permutation(np.resize(list(donors), per_family))
        pairs = [make(portraits[i], donors[i], family, rng) for i in order]
        found["real"] += [real for real, _ in pairs]
        found[family] = [fake for _, fake in pairs]
    return found
