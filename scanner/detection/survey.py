"""What a model said of all tiles of one picture: the parts that look inpainted out.

    picture -> tiles (`tiles`) -> raw scores and maps -> P by the checkpoint's calibration -> heat map -> Regions

One reason: the tiles are scored wherever the model is, and read here, in one way, by the checkpoint's own calibration.
Pictures only, no videos or animations: see `Model.survey`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanner.contract import Region
from scanner.detection import tiles
from scanner.detection.model import SeenTile
from scanner.detection.tiles import Floats, Tile
from scanner.errors import Internal
from scanner.verdict import Calibration


@dataclass(frozen=True, eq=False)
class Survey:
    """The tiles of a picture of `size` (H, W), and what was seen in each of them."""

    size: tuple[int, int]
    tiles: Sequence[Tile]
    seen: Sequence[SeenTile]
    calibration: Calibration

    @property
    def shrunk_to(self) -> float:
        """How large the picture was looked at, 1 = at its own size."""
        return max(tile.scale for tile in self.tiles)

    def heat(self) -> Floats:
        """How likely each cell of `tiles.CELL_PX` was manipulated, 0..1; raises Internal for what is not a number."""
        raw = np.array([one.raw for one in self.seen])
        maps = np.stack([one.attention for one in self.seen])
        if not (np.isfinite(raw).all() and np.isfinite(maps).all()):
            msg = "the model answered with something that is not a number; run `laescan doctor` to test the weights"
            raise Internal(msg)
        scores = [1 / (1 + math.exp(-self.calibration.log_odds(float(one)))) for one in raw]
        return tiles.merge(self.tiles, np.array(scores, np.float32), maps, self.size)

    def regions(self, *, threshold: float) -> tuple[Region, ...]:
        """The parts of the picture that reach `threshold`, surest first."""
        return tiles.regions(self.heat(), self.size, threshold=threshold)
