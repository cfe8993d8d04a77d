"""Curves in, SVG out: small enough to stand in the report's HTML, without a plotting library."""

from collections.abc import Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray

from scanner.training.metrics import rates

SIDE = 260
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")
"""Told apart by the colour-blind (P. Tol, "Colour schemes", 2021)."""
Curve = list[tuple[float, float]]


def roc(real: NDArray[np.float64], fake: NDArray[np.float64]) -> Curve:
    """False alarm rate and hit rate at every cut, from none to all."""
    cuts = np.unique(np.concatenate([real, fake, [np.inf]]))[::-1]
    return list(zip(rates(real, cuts).tolist(), rates(fake, cuts).tolist(), strict=True))


def reliability(p: NDArray[np.float64], is_fake: NDArray[np.bool_], *, bins: int = 10) -> Curve:
    """Mean P(fake) and share of fakes of each tenth that is not empty."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    return [(float(p[which == b].mean()), float(is_fake[which == b].mean())) for b in range(bins) if (which == b).any()]


def svg(curves: Mapping[str, Curve], *, title: str, x: str, y: str) -> str:
    """Curves of the unit square with their names, the diagonal dotted."""
    height = SIDE + 70 + 16 * len(curves)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE + 60} {height}" width="{SIDE + 60}"',
        f' role="img" aria-label="{escape(title)}" font-family="sans-serif" font-size="11">',
        f'<text x="40" y="14" font-weight="bold">{escape(title)}</text>',
        f'<rect x="40" y="24" width="{SIDE}" height="{SIDE}" fill="none" stroke="#999"/>',
        f'<path d="M40 {SIDE + 24}L{SIDE + 40} 24" stroke="#999" stroke-dasharray="2 4"/>',
        f'<text x="{40 + SIDE / 2}" y="{SIDE + 52}" text-anchor="middle">{escape(x)}</text>',
        f'<text transform="translate(12 {24 + SIDE / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]
    for value in (0.0, 0.5, 1.0):
        parts.append(f'<text x="{40 + value * SIDE}" y="{SIDE + 38}" text-anchor="middle">{value:g}</text>')
        parts.append(f'<text x="36" y="{28 + (1 - value) * SIDE}" text-anchor="end">{value:g}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        colour, below = COLOURS[number % len(COLOURS)], SIDE + 70 + 16 * number
        points = " ".join(f"{40 + px * SIDE:.1f},{24 + (1 - py) * SIDE:.1f}" for px, py in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(curve) <= 10:  # a line of one point cannot be seen
            dots = (f'<circle cx="{40 + px * SIDE:.1f}" cy="{24 + (1 - py) * SIDE:.1f}" r="3"/>' for px, py in curve)
            parts.append(f'<g fill="{colour}">{"".join(dots)}</g>')
        parts.append(f'<rect x="40" y="{below - 8}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="56" y="{below}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])
