"""Soft regions of a face: landmarks in, (H, W) float32 masks in 0..1 out.

A forgery is only as honest as its mask, so every family draws its mask here and reports the one it blended with.
"""

from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.training.portraits import Points, region

Mask = NDArray[np.float32]
T = TypeVar("T", np.uint8, np.float32)


def polygon(points: Points, size: int, *, hull: bool = True) -> Mask:
    """The filled polygon (or its convex hull), hard edged."""
    mask = np.zeros((size, size), np.float32)
    outline = points.round().astype(np.int32)
    cv2.fillPoly(mask, [cv2.convexHull(outline) if hull else outline], 1.0)
    return mask


def named(shape: Points, name: str, size: int) -> Mask:
    """The hard mask of one named region; hair is the only one that is not convex."""
    return polygon(region(shape, name), size, hull=name != "hair")


def face_like(shape: Points, rng: Generator, size: int) -> Mask:
    """A random part of the face, jittered, bent and feathered: what blending forgeries replace."""
    name = rng.choice(["inner", "oval", "lower", "eyes", "mouth", "nose"], p=[0.4, 0.2, 0.13, 0.12, 0.1, 0.05])
    mask = bend(jittered(region(shape, str(name)), rng, size), rng, strength=0.03)
    return feather(mask, rng)


def jittered(points: Points, rng: Generator, size: int) -> Mask:
    """The hull of the points, each moved by about 2 % of the canvas, the whole grown or shrunk by up to 12 %."""
    centre = points.mean(0)
    moved = (points - centre) * rng.uniform(0.88, 1.12, 2) + centre + rng.normal(0, 0.015 * size, points.shape)
    return polygon(moved.astype(np.float32), size)


def displacement(rng: Generator, size: int, strength: float, *, grain: int = 6) -> NDArray[np.float32]:
    """A smooth random field (H, W, 2) px with about `strength * size` amplitude."""
    coarse = rng.normal(0, strength * size, (grain, grain, 2)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def moved(picture: NDArray[T], field: NDArray[np.float32]) -> NDArray[T]:
    """The picture resampled at x + field(x)."""
    there = _grid(picture.shape[0]) + field
    border = cv2.BORDER_REFLECT_101
    out = cv2.remap(picture, there, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload] # stubs: no None
    return np.asarray(out, picture.dtype)


@cache
def _grid(size: int) -> NDArray[np.float32]:
    """Where each pixel is: (size, size, 2) as x, y."""
    return np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).astype(np.float32)


def bend(mask: Mask, rng: Generator, *, strength: float) -> Mask:
    """The mask, elastically deformed."""
    return moved(mask, displacement(rng, mask.shape[0], strength))


def feather(mask: Mask, rng: Generator, *, widest: float = 0.06) -> Mask:
    """Soft edges of a random width, up to `widest` of the canvas."""
    sigma = mask.shape[0] * rng.uniform(0.004, widest) / 2
    if rng.random() < 0.5:  # eat inwards, so that the blend stays inside the region
        kernel = np.ones((3, 3), np.uint8)
        mask = np.asarray(cv2.erode(mask, kernel, iterations=max(1, int(sigma))), np.float32)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(sigma, 0.5)), np.float32)


def blob(rng: Generator, size: int) -> Mask:
    """A free-form patch near the middle, 1 % to 13 % of the canvas: holes for inpainting."""
    centre = size * rng.uniform(0.3, 0.7, 2)
    axes = size * rng.uniform(0.05, 0.2, 2)
    mask = np.zeros((size, size), np.float32)
    cv2.ellipse(mask, tuple(map(int, centre)), tuple(map(int, axes)), float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    return (bend(mask, rng, strength=0.03) > 0.5).astype(np.float32)


def hole(shape: Points, rng: Generator, size: int) -> Mask:
    """What inpainting removes, hard edged: a free-form patch or a part of the face."""
    if rng.random() < 0.5:
        return blob(rng, size)
    name = str(rng.choice(["left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth"]))
    grown = cv2.dilate(named(shape, name, size), np.ones((7, 7), np.uint8))
    return (bend(np.asarray(grown, np.float32), rng, strength=0.01) > 0.5).astype(np.float32)
