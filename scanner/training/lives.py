"""More of what happens to pictures on their way: video codecs and screenshots, on top of `degrade`'s resaving.

In and out: (H, W, 3) uint8 RGB. Both members of a pair are given the same, so that it tells nothing.
One reason: a detector that has never seen a screenshot or a video frame takes their traces for a forgery's.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

from scanner.training import clips, degrade
from scanner.training.degrade import Treatment
from scanner.training.portraits import Pixels

Life = Callable[..., Treatment]
"""`draw(rng, *, strength)`: `degrade.draw` or `draw` below."""


def draw(rng: Generator, *, strength: float = 1.0) -> Treatment:
    """A life of `degrade`, and after it, each one time in seven, a video's frame or a screenshot."""
    first = degrade.draw(rng, strength=strength)
    chance = rng.random()
    if chance < strength / 7:
        crf = int(rng.integers(20, 36))
        return lambda picture: clips.h264(first(picture), crf)
    if chance < 2 * strength / 7:
        screen = draw_screenshot(rng)
        return lambda picture: screen(first(picture))
    return first


def draw_screenshot(rng: Generator) -> Treatment:
    """A random screenshot, see `screenshot`."""
    factor, gamma = float(np.exp(rng.uniform(np.log(0.6), np.log(1.4)))), float(rng.uniform(0.85, 1.18))
    offset = int(rng.integers(8, 40)), int(rng.integers(8, 40))
    page, quality = int(rng.choice([0, 18, 32, 240, 255])), int(rng.integers(60, 98))
    saved = str(rng.choice(["png", "jpeg", "webp"]))

    def treatment(picture: Pixels) -> Pixels:
        shown = screenshot(picture, factor=factor, gamma=gamma, page=page, offset=offset)
        if saved != "png":
            shown = (degrade.jpeg if saved == "jpeg" else degrade.webp)(shown, quality)
        side = max(48, round(picture.shape[0] * factor))
        return np.ascontiguousarray(shown[offset[0] : offset[0] + side, offset[1] : offset[1] + side])

    return treatment


def screenshot(picture: Pixels, *, factor: float, gamma: float, page: int, offset: tuple[int, int]) -> Pixels:
    """The square picture as a screen shows it: resized, another gamma, on a page of one grey with a border around.

    So its pixels lie anew on the grid of the next encoder, and the page's colour bleeds into its edges.
    """
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    shown = degrade.rescale(picture, factor, how)
    curve = (255 * (np.arange(256) / 255) ** gamma).round().astype(np.uint8)
    shown = np.asarray(cv2.LUT(shown, curve), np.uint8)
    whole = np.full((shown.shape[0] + 48, shown.shape[1] + 48, 3), page, np.uint8)
    whole[offset[0] : offset[0] + shown.shape[0], offset[1] : offset[1] + shown.shape[1]] = shown
    return whole
