"""What judges: frames in, the faces seen in them out, each with its raw score and its attention map.

    Scanner -> Model.look(frames) -> [[SeenFace, ...], ...]
    Scanner -> Model.survey(picture) -> Survey, for what was inpainted outside of faces

One reason: the pipeline does not know whether the model is loaded into this process (`local_model`) or
answers from another one (`scanner.engine.client`), so a work horse can judge without ever loading torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scanner.contract import ModelInfo
    from scanner.detection.faces import Face, Quality
    from scanner.detection.survey import Survey
    from scanner.verdict import Calibration

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SeenFace:
    """One face of one frame: where it is, how well it can be judged, and what the model said of its crop."""

    face: "Face"
    quality: "Quality"
    crop_to_frame: npt.NDArray[np.float64]  # (2, 3), crop coordinates 0..1 -> frame pixels
    raw: float  # a_F - a_T, higher = more likely manipulated
    attention: npt.NDArray[np.float32]  # (16, 16), mean = a_F


@dataclass(frozen=True, eq=False)
class SeenTile:
    """What the model said of one tile of a whole picture."""

    raw: float  # a_F - a_T, higher = more likely manipulated
    attention: npt.NDArray[np.float32]  # (16, 16), mean = a_F


class Model(Protocol):
    """Finds faces and scores them; who it is and how its raw scores are read stay the same for its whole life."""

    @property
    def info(self) -> "ModelInfo":
        """Who judges, as every verdict names it."""

    @property
    def calibration(self) -> "Calibration":
        """What turns raw scores into probabilities and labels."""

    async def look(self, frames: Sequence[Pixels], *, urgent: bool = True) -> list[list[SeenFace]]:
        """The faces of each frame (H, W, 3) uint8 RGB of one medium, largest first.

        Somebody waits for what is `urgent`; it goes first where several ask at once. Raises EngineError leaves.
        """

    async def survey(self, picture: Pixels, *, urgent: bool = True) -> "Survey | None":
        """What the tiles of a whole picture (H, W, 3) uint8 RGB look like; None by a model that looks at faces only.

        Pictures only: neighbouring frames of a video would each cost as much as hundreds of faces, and the codec has
        smoothed the traces that are looked for. Raises EngineError leaves.
        """
