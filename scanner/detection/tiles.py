"""A whole picture in, overlapping tiles out; scores and maps of the tiles in, `Region`s out.

One reason: inpainting is judged everywhere in a picture, not in faces, and a network sees 256 x 256 pixels at a time.
Everything here is a pure function; who scores the tiles is somebody else's business.

Tiles are cut at the picture's own size, because shrinking wipes out the traces of a filled hole, and once more at half
of it, where a hole larger than a tile has its border inside one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from scanner.contract import Region

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

TILE_PX = 256
STRIDE_PX = 192
CELL_PX = 16  # a tile's map has 16 x 16 cells
MAX_TILES = 192  # a 4000 x 3000 picture has 315 at full size: what is larger is looked at shrunk
MIN_CELLS = 2.0  # a region smaller than this many cells of its scale is noise of the map


@dataclass(frozen=True)
class Tile:
    """One window of TILE_PX, its upper left corner (x, y) in pixels of the picture shrunk by `scale` (1 = not)."""

    x: int
    y: int
    scale: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 in picture pixels; a picture smaller than a tile is smaller than the box of its tile."""
        x0, y0, x1, y1 = (v / self.scale for v in (self.x, self.y, self.x + TILE_PX, self.y + TILE_PX))
        return x0, y0, x1, y1


def plan(height: int, width: int, *, max_tiles: int = MAX_TILES) -> list[Tile]:
    """The tiles of a picture: full size, then half size where a side still holds a tile.

    A picture that would take more than `max_tiles` is shrunk until it does not.
    """
    scale = 1.0
    while len(tiles := _both_scales(height, width, scale)) > max_tiles and min(height, width) * scale > TILE_PX:
        scale *= 0.9
    return tiles


def _both_scales(height: int, width: int, scale: float) -> list[Tile]:
    scales = [scale, scale / 2] if min(height, width) * scale / 2 >= TILE_PX else [scale]
    return [Tile(x, y, s) for s in scales for y in starts(_at(height, s)) for x in starts(_at(width, s))]


def starts(length: int) -> list[int]:
    """Where tiles begin along a side: every STRIDE_PX, the last one flush with the end."""
    last = max(0, length - TILE_PX)
    return [*range(0, last, STRIDE_PX), last]


def cut(picture: Pixels, tiles: Sequence[Tile]) -> Pixels:
    """The tiles (N, TILE_PX, TILE_PX, 3) of a picture (H, W, 3) uint8 RGB; what is missing is mirrored."""
    shrunk = {scale: padded(_shrunk(picture, scale)) for scale in dict.fromkeys(t.scale for t in tiles)}
    parts = [shrunk[t.scale][t.y : t.y + TILE_PX, t.x : t.x + TILE_PX] for t in tiles]
    return np.stack(parts) if parts else np.empty((0, TILE_PX, TILE_PX, 3), np.uint8)


def padded(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The picture, mirrored to the right and below until it fills a tile: enlarging would redraw its pixels."""
    missing = [max(0, TILE_PX - side) for side in picture.shape[:2]]
    if not any(missing):
        return picture
    more = [(0, missing[0]), (0, missing[1]), (0, 0)][: picture.ndim]
    return np.pad(picture, more, mode="symmetric")


def _shrunk(picture: Pixels, scale: float) -> Pixels:
    if scale == 1:
        return picture
    size = _at(picture.shape[1], scale), _at(picture.shape[0], scale)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _at(length: int, scale: float) -> int:
    return max(1, round(length * scale))


def merge(tiles: Sequence[Tile], scores: Floats, maps: Floats, size: tuple[int, int]) -> Floats:
    """One heat map of the picture from its tiles: (ceil(H / CELL_PX), ceil(W / CELL_PX)), 0..1.

    scores: (N,) P(manipulated) of each tile; maps: (N, h, w) where in the tile the evidence lies, any scale, only
    what is positive counts; size: (H, W) of the picture. A tile says P at the strongest place of its map and less
    elsewhere. Tiles of one scale are averaged, weighted by how far inside the tile a place lies: near its border a
    tile has seen half of the matter. Of two scales the surer one counts.
    """
    rows, columns = (-(-side // CELL_PX) for side in size)
    heat = np.zeros((rows, columns), np.float32)
    for scale in dict.fromkeys(t.scale for t in tiles):
        some = [i for i, tile in enumerate(tiles) if tile.scale == scale]
        total, weight = np.zeros_like(heat), np.full_like(heat, 1e-9)
        for i in some:
            ys, xs = _cells(tiles[i].box[1::2], rows), _cells(tiles[i].box[0::2], columns)
            shape = ys.stop - ys.start, xs.stop - xs.start
            if 0 in shape:
                continue
            trust = _tent(tiles[i], size, ys, xs)
            total[ys, xs] += trust * _resized(_share(maps[i]) * scores[i], tiles[i], ys, xs)
            weight[ys, xs] += trust
        heat = np.maximum(heat, total / weight)
    return heat


def _cells(ends: tuple[float, ...], count: int) -> slice:
    """The cells whose middle lies between two places."""
    first, last = (int(np.ceil(end / CELL_PX - 0.5)) for end in ends)
    return slice(max(first, 0), min(last, count))


def _share(attention: Floats) -> Floats:
    """The map's positive part with its strongest cell as 1."""
    positive = np.maximum(attention, 0)
    return np.asarray(positive / max(float(positive.max()), 1e-9), np.float32)


def _resized(values: Floats, tile: Tile, ys: slice, xs: slice) -> Floats:
    """Values of a tile's map (h, w), read at the middles of these cells of the picture."""
    x0, y0, x1, y1 = tile.box
    x = ((np.arange(xs.start, xs.stop) + 0.5) * CELL_PX - x0) / (x1 - x0) * values.shape[1] - 0.5
    y = ((np.arange(ys.start, ys.stop) + 0.5) * CELL_PX - y0) / (y1 - y0) * values.shape[0] - 0.5
    there = np.stack(np.meshgrid(x, y), -1).astype(np.float32)
    border = cv2.BORDER_REPLICATE
    out = cv2.remap(values, there, None, cv2.INTER_LINEAR, borderMode=border)  # type: ignore[call-overload] # stubs: no None
    return np.asarray(out, np.float32)


def _tent(tile: Tile, size: tuple[int, int], ys: slice, xs: slice) -> Floats:
    """How far inside its tile each cell lies, 0..1; the border of the picture is no border of the matter."""
    x0, y0, x1, y1 = tile.box
    sides = []
    for cells, low, high, end in ((ys, y0, y1, size[0]), (xs, x0, x1, size[1])):
        middle = (np.arange(cells.start, cells.stop) + 0.5) * CELL_PX
        before = np.full_like(middle, np.inf) if low <= 0 else middle - low
        after = np.full_like(middle, np.inf) if high >= end else high - middle
        sides.append(np.clip(np.minimum(before, after) / ((high - low) / 2), 0.02, 1))
    return np.asarray(sides[0][:, None] * sides[1], np.float32)


def regions(heat: Floats, size: tuple[int, int], *, threshold: float) -> tuple[Region, ...]:
    """The connected parts of a heat map that reach `threshold`, each grown down to half of its peak; surest first.

    Boxes are in picture pixels, inside the picture (H, W); a region's score is its peak.
    """
    found: list[Region] = []
    left = heat.copy()
    while left.size and float(left.max()) >= threshold:
        peak = float(left.max())
        _, labels = cv2.connectedComponents((left >= peak / 2).astype(np.uint8), connectivity=8)
        inside = labels == labels[np.unravel_index(int(left.argmax()), left.shape)]
        left[inside] = 0
        if inside.sum() >= MIN_CELLS:
            rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
            x1, y1 = min((columns[-1] + 1) * CELL_PX, size[1]), min((rows[-1] + 1) * CELL_PX, size[0])
            box = (float(columns[0] * CELL_PX), float(rows[0] * CELL_PX), float(x1), float(y1))
            found.append(Region(box, peak))
    return tuple(found)
