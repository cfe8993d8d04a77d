"""Photographs of nothing in particular, made up, for what is judged everywhere in a picture."""

from functools import cache

import numpy as np

from scanner.training import scenes


@cache
def photos():
    """Three made-up landscapes of 480 x 330 px: gradients, stripes, grain."""
    found = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:330, :480]
        waves = [np.sin(x / rng.uniform(8, 40) + y / rng.uniform(8, 40) + k) for k in range(3)]
        picture = 120 + 60 * np.stack(waves, -1) + 30 * (y / 330)[..., None] + rng.normal(0, 4, (330, 480, 3))
        canvas = np.clip(picture, 0, 255).astype(np.uint8)
        found.append(scenes.Portrait(canvas, scenes.NO_SHAPE, f"photo{seed}", "train", 1.0))
    return tuple(found)
