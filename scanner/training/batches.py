"""Items of a seen set in, the batches of one epoch out; the same ones for the same seed, stage and epoch.

One reason: an epoch that was cut off by a kill can be lived again to the bit, so a resumed run is the run.
"""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from scanner.training import degrade
from scanner.training.data import Sample, collate
from scanner.training.methods import Batch
from scanner.training.tasks import Item

NO_MASK = np.zeros((64, 64), np.float32)
Raw = tuple[Tensor, Tensor, Tensor, int]  # x (B, 3, S, S) uint8, mask, real, how many are ordinary


def opened(item: Item, *, with_mask: bool = False) -> Sample:
    """The item as a sample; its mask is opened only where one may be used."""
    mask = item.mask() if with_mask and item.mask and not item.is_real else NO_MASK
    return Sample(item.crop(), mask, item.family, item.identity)


class Epoch(Dataset[Raw]):
    """Every fake once, each beside its own original where there is one; in stage 2 with candidates behind.

    Pairs keep identity, camera and compression from telling anything.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        pairs: int,
        key: Sequence[int],
        candidates: tuple[Sequence[Sample], int] = ((), 0),
        augment: bool = False,
    ) -> None:
        """`key` decides all that is drawn; `candidates` are samples with masks and how many of them join a batch."""
        rng = np.random.default_rng(list(key))
        self.key, self.augment = list(key), augment
        reals, fakes = ([i for i in items if i.is_real == wanted] for wanted in (True, False))
        if not reals or not fakes:
            msg = "a batch needs real and forged pictures; the training set lacks one of them"
            raise ValueError(msg)
        by_name = {real.name: real for real in reals}
        order = [fakes[i] for i in rng.permutation(len(fakes))]
        others = rng.integers(len(reals), size=len(order))
        beside = [by_name.get(fake.source) or reals[other] for fake, other in zip(order, others, strict=True)]
        starts = range(0, len(order), pairs)
        self.steps = [(beside[s : s + pairs], order[s : s + pairs]) for s in starts if len(order[s : s + pairs]) > 1]
        self.candidates, self.joining = candidates
        turns = -(-len(self.steps) * self.joining // max(1, len(self.candidates)))
        drawn = [rng.permutation(len(self.candidates)) for _ in range(turns)] if self.joining else []
        self.drawn = np.concatenate(drawn) if drawn else np.zeros(0, np.int64)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> Raw:
        cv2.setNumThreads(0)
        reals, fakes = self.steps[step]
        here = self.drawn[step * self.joining : (step + 1) * self.joining]
        samples = [opened(item) for item in (*reals, *fakes)] + [self.candidates[i] for i in here]
        if self.augment:
            draws = [*range(len(reals)), *range(len(reals)), *range(len(reals), len(reals) + len(here))]
            samples = [
                augmented(s, np.random.default_rng([*self.key, step, draw]))
                for s, draw in zip(samples, draws, strict=True)
            ]
        x, mask, real = collate(samples)
        return x, mask, real, 2 * len(reals)

    def batches(self, device: str, *, workers: int = 0) -> Iterator[Batch]:
        """The steps in order, on the device."""
        for x, mask, real, ordinary in DataLoader(self, batch_size=None, num_workers=workers):
            yield Batch(on(device, x), mask.to(device), real.to(device), ordinary)


def on(device: str, x: Tensor) -> Tensor:
    """Crops (B, 3, S, S) uint8 as the networks take them: 0..1, channels last (a third faster on CPUs)."""
    return (x.to(device).float() / 255).contiguous(memory_format=torch.channels_last)


def augmented(sample: Sample, rng: Generator) -> Sample:
    """One more life on the web and maybe a mirror; a pair gets the same."""
    size = sample.crop.shape[0]
    crop = degrade.draw(rng)(sample.crop)
    if crop.shape[0] != size:
        crop = np.asarray(cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    if rng.random() < 0.5:
        return Sample(crop[:, ::-1], sample.mask[:, ::-1], sample.family, sample.identity)
    return Sample(crop, sample.mask, sample.family, sample.identity)
