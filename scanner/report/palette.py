"""Numbers 0..1 in, colours out: lightness rises evenly, so that it reads the same in grey and to the colour-blind."""

from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# OKLab to linear sRGB (B. Ottosson, "A perceptual color space for image processing", 2020).
_TO_LMS: Final = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_RGB: Final = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def ramp(size: int = 256) -> npt.NDArray[np.uint8]:
    """(size, 3) RGB from deep violet over red to pale yellow; OKLab lightness rises in equal steps."""
    t = np.linspace(0.0, 1.0, size)
    lightness, chroma = 0.25 + 0.70 * t, 0.07 + 0.13 * np.sin(np.pi * t**0.9)
    hue = np.deg2rad(-65 + 170 * t)
    linear = _linear(lightness, chroma, hue)
    for _ in range(60):  # a colour that sRGB lacks loses chroma, never lightness
        outside = ((linear < -1e-4) | (linear > 1 + 1e-4)).any(axis=1)
        chroma = np.where(outside, 0.96 * chroma, chroma)
        linear = _linear(lightness, chroma, hue)
    linear = np.clip(linear, 0.0, 1.0)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * gamma), np.uint8)


def _linear(lightness: Floats, chroma: Floats, hue: Floats) -> Floats:
    """Linear sRGB (n, 3) of OKLCh colours, possibly out of gamut."""
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    return np.asarray((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T)


def stops(count: int = 7) -> list[str]:
    """The ramp as CSS colours, for a legend."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in ramp(count)]
