"""More of what happens to pictures on their way: tones, video codecs and screenshots, on top of `degrade`'s resaving.

In and out: (H, W, 3) uint8 RGB. Both members of a pair are given the same, so that it tells nothing.
One reason: a detector that has never seen a screenshot or a video frame takes their traces for a forgery's. Without
grey pictures in training, 49 % of real validation photographs were called manipulated once their colour was gone.
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
    """Maybe another tone, a life of `degrade`, then, each one time in seven, a video's frame or a screenshot."""
    toned, resaved = draw_tone(rng, strength=strength), degrade.draw(rng, strength=strength)

    def first(picture: Pixels) -> Pixels:
        return resaved(toned(picture))

    chance = rng.random()
    if chance < strength / 7:
        crf = int(rng.integers(20, 36))
        return lambda picture: clips.h264(first(picture), crf)
    if chance < 2 * strength / 7:
        screen = draw_screenshot(rng)
        return lambda picture: screen(first(picture))
    return first


def draw_tone(rng: Generator, *, strength: float = 1.0) -> Treatment:
    """What filters and cameras do to colour: grey (1 of 8), a tint (1 of 6), another gamma (1 of 8), or nothing."""
    kind = rng.choice(
        ["grey", "tint", "gamma", "none"], p=[strength / 8, strength / 6, strength / 8, 1 - strength * 5 / 12]
    )
    if kind == "grey":
        return grey
    if kind == "none":
        return lambda picture: picture
    powers = rng.uniform(0.7, 1.4, 1) if kind == "gamma" else np.ones(1)
    gains = rng.uniform(0.85, 1.15, 3) if kind == "tint" else np.ones(3)
    levels = 255 * (np.arange(256)[:, None] / 255) ** powers * gains  # (256, 3)
    curve = levels.clip(0, 255).round().astype(np.uint8)[None]
    return lambda picture: np.asarray(cv2.LUT(picture, curve), np.uint8)


def grey(picture: Pixels) -> Pixels:
    """Without its colour."""
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB), np.uint8)


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
