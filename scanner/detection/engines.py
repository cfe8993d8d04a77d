"""A detector on a GPU in; the same detector with an engine that fits, now or once it was built, out.

One reason: engines are built where they run and take minutes, so the first start builds them in another process, under
a lock, while plain CUDA serves; when the guard has passed, the engine takes over between two batches.
"""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from scanner.detection.checkpoint import Checkpoint, golden_crops
from scanner.detection.detector import Detector
from scanner.detection.faces import CROP_PX, FaceDetector, align
from scanner.detection.folded import Folded, Scorer
from scanner.folders import state_folder
from scanner.settings import Settings
from trt_engines.build import Network
from trt_engines.errors import NoCompiler
from trt_engines.flavours import Flavour, flavours
from trt_engines.load import find
from trt_engines.manifest import Profile, Wanted
from trt_engines.store import Store

log = logging.getLogger(__name__)

PROFILE = Profile(1, 64, 256)
STEM = "encoder.stages.0.conv"
"""Stays as it is when others go to 8 bits: the traces that it looks for are a few grey levels high."""


def engine_store(settings: Settings) -> Store:
    """Where engines are kept."""
    return Store(Path(settings.engines_folder) if settings.engines_folder else state_folder(settings) / "engines")


def compilers() -> tuple[dict[str, Flavour], dict[str, str]]:
    """Flavours that can build and run here, best first, and why the others cannot."""
    able, unable = {}, {}
    for name, flavour in flavours().items():
        try:
            if flavour.needs_cuda and not torch.cuda.is_available():
                unable[name] = "torch finds no NVIDIA GPU here"
            else:
                flavour.versions()
                able[name] = flavour
        except NoCompiler as error:
            unable[name] = str(error)
    return able, unable


def network(checkpoint: Checkpoint, crops: "Crops | None" = None) -> Network:
    """What engines of this checkpoint are made of and held to."""

    def module(dtype: torch.dtype) -> torch.nn.Module:
        return Scorer(Folded(checkpoint.encoder, dtype), checkpoint.calibration, cast_first=True).eval()

    pixels, forged = (guard_crops(), None) if crops is None else (crops.pixels, crops.forged)
    return Network(checkpoint.model_id, module, torch.from_numpy(pixels), forged, besides=(STEM,))


@dataclass(frozen=True)
class Crops:
    """Crops (N, 256, 256, 3) uint8 RGB whose truth is known."""

    pixels: npt.NDArray[np.uint8]
    forged: npt.NDArray[np.bool_]  # (N,)

    @classmethod
    def read(cls, folder: Path) -> "Crops":
        """Of `real/` and `forged/` below a folder: crops, or pictures whose largest face is cut out; raises OSError."""
        faces, found = FaceDetector(), []
        for is_forged, name in ((False, "real"), (True, "forged")):
            for path in sorted((folder / name).iterdir()):
                picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
                if picture is not None:
                    found += [(crop, is_forged) for crop in _crop(np.asarray(picture, np.uint8), faces)]
        if not found:
            msg = f"no faces in {folder}/real and {folder}/forged"
            raise FileNotFoundError(msg)
        return cls(np.stack([crop for crop, _ in found]), np.array([is_forged for _, is_forged in found]))


def _crop(picture: npt.NDArray[np.uint8], faces: FaceDetector) -> Sequence[npt.NDArray[np.uint8]]:
    if picture.shape == (CROP_PX, CROP_PX, 3):
        return [picture]
    return [align(picture, face)[0] for face in faces.detect([picture], max_faces=1)[0]]


def guard_crops() -> npt.NDArray[np.uint8]:
    """The golden crops, turned, mirrored, darker, flatter: 64 crops (64, 256, 256, 3) that need no data set."""
    turned = [np.rot90(golden_crops(), quarters, (1, 2)) for quarters in range(4)]
    both = np.concatenate([*turned, *(one[:, :, ::-1] for one in turned)])  # (32, ...)
    return np.concatenate([both, both // 2 + 40])


def attach(detector: Detector, settings: Settings, *, flavours_here: Mapping[str, Flavour] | None = None) -> bool:
    """Let the best engine that fits score; out: whether there is one. Says why each other one is passed over."""
    if settings.engines == "off" or (detector.backend.device != "cuda" and flavours_here is None):
        return False
    able = compilers()[0] if flavours_here is None else flavours_here
    wanted = Wanted(model_id=detector.checkpoint.model_id)
    loaded, reasons = find(engine_store(settings), wanted, able, detector.backend.device)
    for reason in reasons:
        log.warning("engine passed over: %s", reason)
    if loaded is not None:
        detector.adopt(loaded)
    return loaded is not None


class Builder:
    """Builds engines in another process while this one serves; ends with it."""

    def __init__(self, detectors: Sequence[Detector], settings: Settings, command: Sequence[str] = ()) -> None:
        self._detectors, self._settings = detectors, settings
        self._command = command or (sys.executable, "-m", "scanner.cli", "engines", "build")
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._build, name="laescan-engines", daemon=True)

    def start(self) -> None:
        """Begin; an engine that came out well takes over by itself."""
        self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.setpriority(os.PRIO_PROCESS, self._child.pid, 10)  # whoever waits for a verdict goes first
        log.info("no engine fits this machine; building one (process %d), serving without meanwhile", self._child.pid)
        self._thread.start()

    def _build(self) -> None:
        assert self._child is not None  # noqa: S101 - `start` made it
        if self._child.wait():
            log.warning("no engine was built (exit code %d): `laescan engines build` tells why", self._child.returncode)
            return
        for detector in self._detectors:
            attach(detector, self._settings)

    def stop(self) -> None:
        """End what is still building; what it leaves is swept by the next build."""
        if self._child is not None:
            self._child.terminate()
            self._thread.join()


def builder(detectors: Sequence[Detector], settings: Settings) -> Builder | None:
    """The one to start, None where engines are not wanted, not possible, or there already."""
    lacking = [one for one in detectors if one.backend.device == "cuda" and one.info == one.plain_info]
    able = [name for name in compilers()[0] if name != "exported"] if lacking and settings.engines == "auto" else []
    return Builder(lacking, settings) if able else None


def report(detector: Detector, settings: Settings) -> tuple[bool, tuple[str, ...]]:
    """What `laescan doctor` says of engines, and whether nothing is wrong."""
    if settings.engines == "off":
        return True, ("off by LAESCAN_ENGINES",)
    if detector.backend.device != "cuda":
        return True, ("none: TensorRT engines are for NVIDIA GPUs, and torch finds none here",)
    store = engine_store(settings)
    bad = tuple(entry.trouble for entry in store.entries() if entry.manifest is None)
    able, unable = compilers()
    loaded, reasons = find(store, Wanted(model_id=detector.checkpoint.model_id), able, detector.backend.device)
    if loaded is not None:
        about = loaded.manifest
        held = f"scores within {about.guard.worst_score:.4f} of fp32 on {about.guard.crops} crops"
        return not bad, (f"{about.flavour}, {about.precision}, batches {about.profile}; {held}", *bad)
    missing = tuple(f"{name}: {why}" for name, why in unable.items())
    return not bad, ("none fits; `laescan engines build` builds one", *reasons, *missing)
