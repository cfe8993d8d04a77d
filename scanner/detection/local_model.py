"""The model in this very process: frames in, seen faces out, on the fastest device here.

    frames -> faces -> aligned crops -> raw scores and attention maps

One reason: `laescan scan` without a server and the engine behind one run the same lines, so their scores are the same.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
from msgspec.structs import replace

from scanner.contract import ModelInfo
from scanner.detection import tiles
from scanner.detection.checkpoint import both
from scanner.detection.detector import Detector
from scanner.detection.engines import Builder, attach, builder
from scanner.detection.faces import (
    CROP_PX,
    Face,
    FaceDetector,
    Glance,
    Matrix,
    Quality,
    align,
    all_around,
    answered,
    judge_quality,
)
from scanner.detection.model import Pixels, SeenFace, SeenTile
from scanner.detection.survey import Survey
from scanner.settings import Settings
from scanner.verdict import Calibration


class LocalModel:
    """Face detector and detector of forgeries, with another one for whole pictures if asked for; a context manager.

    It serves one call at a time, in a thread of its own: two at once would fight for the same cores, and oneDNN
    compiles its kernels anew for every thread.
    """

    def __init__(self, detector: Detector, settings: Settings, for_regions: Detector | None = None) -> None:
        self.detector, self.for_regions = detector, for_regions
        self.faces = FaceDetector(detector.backend.device)
        self._settings = settings
        self._builder: Builder | None = None
        self._stack = contextlib.ExitStack()

    @classmethod
    def load(cls, settings: Settings) -> "LocalModel":
        """The model for these settings, with the engines that fit; raises BadWeights."""
        for_regions = Detector.load_for_regions(settings) if settings.regions else None
        model = cls(Detector.load(settings), settings, for_regions)
        for detector in model.detectors:
            attach(detector, settings)
        return model

    @property
    def detectors(self) -> list[Detector]:
        """Of faces, and of whole pictures if asked for."""
        return [one for one in (self.detector, self.for_regions) if one is not None]

    def build_engines(self) -> None:
        """Build in the background what engines are missing, and let them take over; for whoever lives long."""
        self._builder = builder(self.detectors, self._settings)
        if self._builder is not None:
            self._builder.start()
            self._stack.callback(self._builder.stop)

    def __enter__(self) -> Self:
        self._thread = self._stack.enter_context(ThreadPoolExecutor(1, "laescan-model"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def info(self) -> ModelInfo:
        """Who judges."""
        if self.for_regions is None:
            return self.detector.info
        model_id = both(self.detector.info.model_id, self.for_regions.info.model_id)
        return replace(self.detector.info, model_id=model_id)

    @property
    def calibration(self) -> Calibration:
        """What turns raw scores into probabilities and labels."""
        return self.detector.calibration

    @property
    def region_calibration(self) -> Calibration | None:
        """The same for tiles of whole pictures; None when they are not looked at."""
        return self.for_regions.calibration if self.for_regions else None

    async def look(self, frames: Sequence[Pixels], *, urgent: bool = True) -> list[list[SeenFace]]:
        """The faces of each frame of one medium, largest first; first come, first served, `urgent` or not."""
        del urgent
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, frames)

    def _look(self, frames: Sequence[Pixels]) -> list[list[SeenFace]]:
        def see(glance: Glance) -> list[list[SeenFace]]:
            return self.see([frames[i] for i in glance.frames], quarters=glance.quarters)

        return answered(all_around([frame.shape for frame in frames]), see)

    async def survey(self, picture: Pixels, *, urgent: bool = True) -> Survey | None:
        """What the tiles of a picture look like, None without weights for it; first come, first served."""
        del urgent
        if self.for_regions is None:
            return None
        size, calibration = picture.shape[:2], self.for_regions.calibration
        plan = tiles.plan(*size)

        def see() -> list[SeenTile]:
            return self.see_tiles(list(tiles.cut(picture, plan)))

        seen = await asyncio.get_running_loop().run_in_executor(self._thread, see)
        return Survey(size, plan, seen, calibration)

    def see_tiles(self, cut: Sequence[Pixels]) -> list[SeenTile]:
        """What each tile (256, 256, 3) looks like; blocks. They need not belong together."""
        assert self.for_regions is not None  # noqa: S101 - nobody is asked for what he has no weights for
        scores = self.for_regions.score(np.stack(cut))
        return [SeenTile(*one) for one in zip(scores.raw.tolist(), scores.attention, strict=True)]

    def warm_up(self) -> None:
        """Let the device compile what it needs, so that the first who asks need not wait for it; blocks."""
        grey = np.full((2 * CROP_PX, 2 * CROP_PX, 3), 128, np.uint8)
        self.see([grey])
        for detector in self.detectors:
            detector.score(grey[None, :CROP_PX, :CROP_PX])

    def see(
        self, frames: Sequence[Pixels], *, quarters: int = 0, min_face_px: int = 0, max_faces: int = 0
    ) -> list[list[SeenFace]]:
        """The faces of each frame as it stands, or turned by `quarters`; blocks. Frames need not belong together.

        0 stands for what the settings say.
        """
        limits = {
            "min_face_px": min_face_px or self._settings.min_face_px,
            "max_faces": max_faces or self._settings.max_faces,
        }
        found = self.faces.glance(frames, quarters=quarters, **limits)
        crops: list[Pixels] = []  # each (256, 256, 3)
        cuts = [[_cut(frame, face, crops) for face in faces] for frame, faces in zip(frames, found, strict=True)]
        scores = self.detector.score(np.stack(crops) if crops else np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8))
        answers = zip(scores.raw.tolist(), scores.attention, strict=True)
        return [[SeenFace(*cut, *next(answers)) for cut in of_frame] for of_frame in cuts]


def _cut(frame: Pixels, face: Face, crops: list[Pixels]) -> tuple[Face, Quality, Matrix]:
    """Cut a face out onto the end of `crops`; out: the first three fields of its SeenFace."""
    crop, crop_to_frame = align(frame, face)
    crops.append(crop)
    return face, judge_quality(frame, face, crop), crop_to_frame
