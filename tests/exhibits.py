"""A task small enough to train on in a test: smooth pictures, and the same with a rough square in them."""

import itertools
from functools import cache, partial

import cv2
import numpy as np

from scanner.training.tasks import Item, SeenSet, TaskData, UnseenSet

SIDE = 256


@cache
def smooth(seed):
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 4, 3), np.uint8)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def square(seed):
    y, x = np.random.default_rng([seed, 1]).integers(16, SIDE - 112, 2)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[y : y + 96, x : x + 96] = 1
    return mask


@cache
def rough(seed, level):
    grain = np.random.default_rng([seed, 2]).normal(0, level, (SIDE, SIDE, 3))
    return np.clip(smooth(seed) + grain * square(seed)[..., None], 0, 255).astype(np.uint8)


def pair(seed, family="rough", *, group=None, level=40):
    """A real item and its forgery; every seed is another person."""
    who = group or f"person{seed}"
    real = Item(f"real/{seed}", "real", who, who, partial(smooth, seed))
    mask = partial(square, seed)
    return real, Item(f"{family}/{seed}", family, who, who, partial(rough, seed, level), mask, real.name)


def pairs(seeds, family="rough", **more):
    return tuple(item for seed in seeds for item in pair(seed, family, **more))


def seen_set(train=8, val=4, test=4):
    ends = np.cumsum([0, train, val, test])
    return SeenSet(("rough",), *(pairs(range(a, b)) for a, b in itertools.pairwise(ends)))


def task(**sizes):
    unseen = UnseenSet(("grainy",), pairs(range(1000, 1004), "grainy", level=32))
    return TaskData("inpainting", seen_set(**sizes), unseen, origin="drawn for a test", masks="exact")
