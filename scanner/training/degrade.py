"""What the web does to every picture, real or forged: resize, blur, noise, JPEG, WebP.

In and out: (H, W, 3) uint8 RGB.
Real and fake get the same treatments from the same distribution, so that none of them can become a shortcut.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from scanner.training.portraits import Pixels

Treatment = Callable[[Pixels], Pixels]


def jpeg(picture: Pixels, quality: int) -> Pixels:
    """Through JPEG (4:2:0) and back."""
    return _through(".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality], picture)


def webp(picture: Pixels, quality: int) -> Pixels:
    """Through lossy WebP and back."""
    return _through(".webp", [cv2.IMWRITE_WEBP_QUALITY, quality], picture)


def _through(suffix: str, options: list[int], picture: Pixels) -> Pixels:
    _, data = cv2.imencode(suffix, picture[:, :, ::-1], options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # noqa: S101 - narrows the type: we have just encoded it
    return np.asarray(decoded[:, :, ::-1], np.uint8)


def rescale(picture: Pixels, factor: float, interpolation: int) -> Pixels:
    """To `factor` of its size; the picture stays at that size."""
    side = max(48, round(picture.shape[0] * factor))
    shrink = cv2.INTER_AREA if factor < 1 and interpolation == cv2.INTER_LINEAR else interpolation
    return np.asarray(cv2.resize(picture, (side, side), interpolation=shrink), np.uint8)


def noise(picture: Pixels, sigma: float, rng: Generator) -> Pixels:
    """Gaussian noise, sigma in grey levels."""
    grain = rng.standard_normal(picture.shape, np.float32) * np.float32(sigma)
    return np.clip(picture + grain, 0, 255).astype(np.uint8)


def draw(rng: Generator, *, strength: float = 1.0) -> Treatment:
    """One random life on the web: maybe blur or noise, maybe a resize, then zero to two lossy encodings.

    A treatment can be applied to both members of a pair. With `strength` below 1 that share of lives is lived at all:
    training begins with traces that can be seen.
    """
    if rng.random() > strength:
        return lambda picture: picture
    seed = int(rng.integers(2**32))
    steps: list[Treatment] = []
    if rng.random() < 0.15:
        sigma = rng.uniform(0.3, 1.0)
        steps.append(lambda p: np.asarray(cv2.GaussianBlur(p, (0, 0), sigma), np.uint8))
    if rng.random() < 0.15:
        level = rng.uniform(1, 6)
        steps.append(lambda p: noise(p, level, np.random.default_rng(seed)))
    if rng.random() < 0.6:
        factor = float(np.exp(rng.uniform(np.log(0.45), np.log(1.5))))
        how = int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4]))
        steps.append(lambda p: rescale(p, factor, how))
    for _ in range(int(rng.choice([0, 1, 2], p=[0.2, 0.65, 0.15]))):
        quality = int(rng.uniform(48, 98))
        steps.append(_encoding(webp if rng.random() < 0.2 else jpeg, quality))

    def treatment(picture: Pixels) -> Pixels:
        for step in steps:
            picture = step(picture)
        return picture

    return treatment


def _encoding(codec: Callable[[Pixels, int], Pixels], quality: int) -> Treatment:
    return lambda picture: codec(picture, quality)
