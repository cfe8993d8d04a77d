"""Two small pictures of one shape in; how much they differ where they differ most out. Pure: numpy and Pillow's resize.

In: YCbCr pixels (N, N, 3) and the detail that both originals have. Out: `difference`, below 1 for copies of a picture.
One reason: a copy differs a little everywhere, a forgery much in one place; so both are brought to the same detail and
place first, and then the worst window decides alone.

Limits chosen on 70 training pictures (350 strong re-encodings, 1,170 forgeries as in `tests/bench_near.py`): how far
the worst window stands out from the median one separates best. The least forgery stands out by 2.6 grey levels (RMS),
99 % of JPEG 30 and WebP 40 by less than 2.4; a plain maximum that takes no forgery loses 27 % of these copies.

Of 290 other pictures 2.25 let 2 of 4,080 forgeries pass, both faint changes of a feature's colour or smoothness; a
wrong verdict costs more than a scan, hence 1.9. That took 14 % of the copies, most of them resized: ways to resize
differ by how sharp they are, so that is taken out first. Seen on 90 training pictures, then measured on 142 others with
forgeries drawn anew: 93.7 % of 1,278 copies of nine kinds pass (85.7 % without), and 0 of 1,623 forgeries, the least at
1.2; on 290 pictures, those among them, 93.9 % of 2,610 and 0 of 3,306, the least at 1.1.
Therefore what passes is inherited provisionally, never "authentic" unless asked for, and scanned afterwards by sample.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WINDOW_PX = 16
MAX_STRUCTURE = 0.12
"""1 - SSIM of the luma of a window: form."""
MAX_LUMA = 1.9
"""Grey levels by which the RMS difference of the worst 16-px window exceeds the median window's."""
MAX_NOISE = 1.5
"""The most that the median window may excuse: WebP 40 reaches 1.4; else noise added everywhere would hide a forgery."""
MAX_SHARPER = 1.25
"""How much of its Laplacian a copy may be sharper or softer by as a whole: at most 1.2 for a quarter of the size."""
MAX_CHROMA = 5.6
"""Levels between the means of Cb or of Cr in a 16-px window: make-up, hair, skin. JPEG halves the colours' detail."""
MAX_DRIFT_PX = 2.0
"""How far a corner may lie off: resizing 481 px by a half may give 240 px of 480 or of 481."""
_SIGMA_PX = 1.2  # blurs away what is left of blocks; without it the SSIM of 8-px windows of JPEG 30 falls to 0.76
_SIGMA_OF_DETAIL = 0.8  # pixels of the poorer original: below it, ways of resizing differ
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # Wang et al. 2004, "Image quality assessment", their constants
_SEEN_PX = 0.1  # a smaller drift is left: resampling would cost more than it mends


@dataclass(frozen=True)
class Drift:
    """Where a point of one picture lies in the other, all in 0..1: x' = x + dx + (x - 0.5) * wider, and so on."""

    dx: float = 0.0
    dy: float = 0.0
    wider: float = 0.0
    higher: float = 0.0

    def moved(self, x: float, y: float) -> tuple[float, float]:
        """The point in the other picture."""
        return x + self.dx + (x - 0.5) * self.wider, y + self.dy + (y - 0.5) * self.higher


def difference(one: Pixels, other: Pixels, *, detail: tuple[float, float]) -> float:
    """The largest of the three differences of any window, each over its limit: below 1 the two show the same.

    `detail` is the width and height in pixels that the poorer of the two originals has of what is shown.
    """
    return _difference(_shown(one, detail), _shown(other, detail))


def drift_and_difference(one: Pixels, other: Pixels, *, detail: tuple[float, float]) -> tuple[Drift | None, float]:
    """How the other picture as a whole is shifted and stretched, and the `difference` without that.

    None and infinite when that is more than resizing can do.
    """
    a, b = _shown(one, detail), _shown(other, detail)
    found = _drift(a[0], b[0])
    if found is None:
        return None, np.inf
    if found != Drift():
        b = _shown(_undrifted(other, found), detail)
    return found, _difference(a, b)


def _difference(a: Floats, b: Floats) -> float:
    structure = 1 - _least_ssim(a[0], b[0])
    levels = np.sqrt(np.maximum(_means(_apart(a[0], b[0]) ** 2), 0))  # the sums of nothing may round to below it
    luma = float(levels.max() - min(np.median(levels), MAX_NOISE))
    chroma = max(float(np.abs(_means(a[i] - b[i])).max()) for i in (1, 2))
    return max(structure / MAX_STRUCTURE, luma / MAX_LUMA, chroma / MAX_CHROMA)


def _drift(a: Floats, b: Floats) -> Drift | None:
    """Least squares of the brightness constancy equation (Lucas and Kanade 1981), four unknowns for the whole picture.

    Too few to follow a forged part of it.
    """
    side = len(a)
    down, across = np.gradient((a + b) / 2)
    middle = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    columns = [across, down, across * middle, down * middle[:, None]]
    design = np.stack([column.ravel() for column in columns], 1).astype(np.float64)
    moments = design.T @ design + np.eye(4) * 1e-3  # a picture without edges has no drift to be seen
    dx, dy, wider, higher = np.linalg.solve(moments, design.T @ (a - b).ravel()) / side
    corner_px = max(abs(dx) + abs(wider) / 2, abs(dy) + abs(higher) / 2) * side
    if corner_px < _SEEN_PX:
        return Drift()
    return Drift(float(dx), float(dy), float(wider), float(higher)) if corner_px <= MAX_DRIFT_PX else None


def _undrifted(pixels: Pixels, found: Drift) -> Pixels:
    """The other picture as the first one lies."""
    side, pad = pixels.shape[0], 4
    padded = Image.fromarray(np.pad(pixels, ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
    x0, y0 = (part * side + pad for part in found.moved(0, 0))
    matrix = (1 + found.wider, 0.0, x0, 0.0, 1 + found.higher, y0)
    moved = padded.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(moved)


def _apart(one: Floats, other: Floats) -> Floats:
    """Their difference, without what the one is sharper than the other as a whole.

    Ways to resize differ by a linear filter, to first order a multiple of the Laplacian, the same everywhere: one
    unknown for the whole picture, as with `drift`, so it cannot follow a forged part.
    """
    apart, edges = one - other, _laplacian((one + other) / 2)
    sharper = float((edges * apart).sum() / ((edges * edges).sum() + 1e-3))
    return np.asarray(apart - np.clip(sharper, -MAX_SHARPER, MAX_SHARPER) * edges, np.float32)


def _laplacian(plane: npt.NDArray[np.floating]) -> Floats:
    padded = np.pad(plane, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return np.asarray(around - 4 * plane, np.float32)


def _limited(pixels: Pixels, detail: tuple[float, float]) -> Pixels:
    """The picture with no more detail than `detail` pixels."""
    side = pixels.shape[0]
    width, height = (min(side, max(8, round(px))) for px in detail)
    if width == height == side:
        return pixels
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def _shown(pixels: Pixels, detail: tuple[float, float]) -> Floats:
    """What both originals can show of it, as (3, N, N) float32."""
    return _smooth(_limited(pixels, detail), detail)


def _smooth(pixels: Pixels, detail: tuple[float, float]) -> Floats:
    """Blurred by 1.2 px or 0.8 pixels of the poorer original, as (3, N, N) float32."""
    planes = pixels.astype(np.float32).transpose(2, 0, 1)
    sigma_px = max(_SIGMA_PX, _SIGMA_OF_DETAIL * pixels.shape[0] / max(8.0, min(detail)))
    reach = round(3.5 * sigma_px)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2).astype(np.float32)
    for axis in (1, 2):
        padding = [(0, 0), (0, 0), (0, 0)]
        padding[axis] = (reach, reach)
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(planes, padding, mode="edge"), len(taps), axis)
        planes = windows @ (taps / taps.sum())
    return np.ascontiguousarray(planes, np.float32)


def _least_ssim(a: Floats, b: Floats) -> float:
    """The least structural similarity of any 16-px window."""
    mean_a, mean_b, aa, bb, ab = (_means(x) for x in (a, b, a * a, b * b, a * b))
    variances = aa - mean_a**2 + bb - mean_b**2
    covariance = ab - mean_a * mean_b
    ssim = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2) / ((mean_a**2 + mean_b**2 + _C1) * (variances + _C2))
    return float(ssim.min())


def _means(x: Floats) -> npt.NDArray[np.float64]:
    """Means over all windows that begin at multiples of 4 px."""
    step, cells = WINDOW_PX // 4, 4 * x.shape[0] // WINDOW_PX
    sums = x.reshape(cells, step, cells, step).sum((1, 3), dtype=np.float64)
    ends = np.pad(sums.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    windows = ends[4:, 4:] - ends[:-4, 4:] - ends[4:, :-4] + ends[:-4, :-4]
    return np.asarray(windows / WINDOW_PX**2)
