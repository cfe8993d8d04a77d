"""A portrait in, the same with glasses drawn onto it and their exact mask out.

One reason: added things are an attribute edit of their own kind: no pixel comes from a photograph.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.training.masks import Mask
from scanner.training.portraits import Pixels, Portrait, five_of, region

_FINER = 4  # drawn at 4 times the size, then averaged: clean edges
Ink = NDArray[np.float32]  # (H, W) 0..1, how much of a pixel is covered


def glasses(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Spectacles or sunglasses: frame, lenses, temples, a shadow below and a glint; the mask is what they cover."""
    size = portrait.canvas.shape[0]
    rims, lenses = _drawn(portrait, rng, size)
    picture = portrait.canvas.astype(np.float32)
    drop = np.array([[1, 0, 0], [0, 1, size * rng.uniform(0.006, 0.015)]])
    shadow = cv2.warpAffine(cv2.GaussianBlur(rims, (0, 0), size * 0.006), drop, (size, size))
    shadow = np.asarray(shadow * rng.uniform(0.15, 0.45), np.float32)
    shadow[shadow < 0.01] = 0
    dark = rng.random() < 0.45
    opacity = rng.uniform(0.6, 0.95) if dark else rng.uniform(0.04, 0.2)
    tint = rng.uniform(0, 50, 3) if dark else rng.uniform(120, 230, 3)
    metal = rng.uniform(120, 220) if rng.random() < 0.3 else rng.uniform(0, 70)
    rim_colour = np.clip(metal + rng.normal(0, 15, 3), 0, 255)
    glint = _glint(lenses, rng, size)
    for cover, colour in (
        (shadow, np.zeros(3)),
        (lenses * opacity, tint),
        (glint, np.full(3, 245.0)),
        (rims, rim_colour),
    ):
        picture += cover[..., None].astype(np.float32) * (colour.astype(np.float32) - picture)
    left = (1 - shadow) * (1 - lenses * opacity) * (1 - glint) * (1 - rims)  # what shines through
    mask = np.asarray(1 - left, np.float32)
    mask[mask < 1e-4] = 0
    out = np.where(mask[..., None] > 0, np.clip(picture.round(), 0, 255), portrait.canvas)
    return out.astype(np.uint8), mask


def _drawn(portrait: Portrait, rng: Generator, size: int) -> tuple[Ink, Ink]:
    """Rims (with bridge and temples) and lenses of one pair of glasses on this face."""
    left, right = five_of(portrait.shape)[:2] * _FINER
    eye = float(np.hypot(*(right - left)))
    angle = float(np.degrees(np.arctan2(*(right - left)[::-1])))
    sink = np.array([0, eye * rng.uniform(0, 0.12)])
    axes = eye * np.array([rng.uniform(0.34, 0.46), rng.uniform(0.22, 0.36)])
    power = float(rng.choice([2, 2.5, 4, 8]))  # from round to almost rectangular
    shape = (size * _FINER, size * _FINER)
    rims, lenses = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    width = max(2, round(eye * rng.uniform(0.02, 0.07)))
    outlines = [_superellipse(middle + sink, axes, angle, power) for middle in (left, right)]
    cv2.fillPoly(lenses, outlines, 255)
    if rng.random() < 0.85:  # else rimless
        cv2.polylines(rims, outlines, isClosed=True, color=255, thickness=width)
    along = (right - left) / eye
    inner = [left + sink + along * axes[0], right + sink - along * axes[0]]
    high = np.array([0, -axes[1] * rng.uniform(0.1, 0.5)])
    cv2.polylines(
        rims, [_points([inner[0] + high, *(inner[1] + high)[None]])], isClosed=False, color=255, thickness=width
    )
    oval = region(portrait.shape, "oval") * _FINER
    for middle, way, end in ((left, -1, oval[:, 0].min()), (right, 1, oval[:, 0].max())):
        start = middle + sink + way * along * axes[0] + high
        cv2.line(rims, _point(start), _point(np.array([end, start[1] - eye * 0.03])), 255, width)
    small = (size, size)
    return _fine(rims, small), _fine(lenses, small)


def _fine(drawn: Pixels, size: tuple[int, int]) -> Ink:
    return np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)


def _glint(lenses: Ink, rng: Generator, size: int) -> Ink:
    """A soft bright band across the lenses, sometimes none."""
    if rng.random() < 0.4:
        return np.zeros_like(lenses)
    band = np.zeros((size, size), np.float32)
    x = size * rng.uniform(0.3, 0.7)
    lean = size * rng.uniform(-0.2, 0.2)
    cv2.line(band, (int(x), 0), (int(x + lean), size), 1.0, int(size * rng.uniform(0.01, 0.05)))
    soft = np.asarray(cv2.GaussianBlur(band, (0, 0), size * 0.008), np.float32)
    return np.asarray(soft * lenses * rng.uniform(0.1, 0.6), np.float32)


def _superellipse(
    middle: NDArray[np.float32], axes: NDArray[np.float64], angle: float, power: float
) -> NDArray[np.int32]:
    """|x/a|^p + |y/b|^p = 1, turned and moved: 2 is an ellipse, 8 nearly a rectangle."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    unit = np.stack([np.cos(t), np.sin(t)], 1)
    points = np.sign(unit) * np.abs(unit) ** (2 / power) * axes
    turn = np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return _points(points @ matrix.T + middle)


def _points(points: object) -> NDArray[np.int32]:
    return np.asarray(points, np.float64).round().astype(np.int32)


def _point(point: NDArray[np.float64]) -> tuple[int, int]:
    x, y = point.round().astype(int).tolist()
    return x, y
