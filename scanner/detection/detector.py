"""Crops in, raw scores and attention maps out, by the fastest backend that this machine has.

    crops (M, 256, 256, 3) uint8 RGB -> micro-batches -> engine, or folded encoder -> raw (M,), attention (M, 16, 16)

One reason: where and how the encoder runs is decided here; what it says is the same everywhere, within the guard.
An engine that fits goes first (`detection.engines`), then CUDA with graphs, then the CPU in bf16 where it has that.
Only the encoder runs: verdict and map come from the latent (2.4x less time than with the decoder).
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from scanner.contract import ModelInfo
from scanner.detection import lean
from scanner.detection.checkpoint import SHIPPED, SHIPPED_REGIONS, Checkpoint, load_checkpoint
from scanner.detection.folded import DTYPES, Folded, Scorer
from scanner.detection.graphs import Graphed
from scanner.detection.lean import Lean
from scanner.errors import BadWeights
from scanner.settings import Settings
from scanner.verdict import Calibration
from trt_engines.export import Run
from trt_engines.load import Loaded

log = logging.getLogger(__name__)

MICRO_BATCH = {"cpu": 8, "cuda": 128}
"""Crops per forward. CPU: 6.4, 5.2, 5.0 core-ms per crop for 1, 4, 8 (AVX-512, fp32); memory grows with it."""
BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""CPU features with which bf16 is faster than fp32; without them it is emulated, at several times the cost."""


@dataclass(frozen=True)
class Scores:
    """What the model says of M crops."""

    raw: npt.NDArray[np.float32]  # (M,) a_F - a_T, higher = more likely manipulated
    attention: npt.NDArray[np.float32]  # (M, 16, 16), the mean of each map is a_F


@dataclass(frozen=True)
class Backend:
    """Where and how precisely the encoder runs, and why there."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    why: str


def choose_backend(cpu_features: Mapping[str, Any] | None = None, *, has_cuda: bool | None = None) -> Backend:
    """The fastest backend here; both arguments default to what torch finds."""
    if torch.cuda.is_available() if has_cuda is None else has_cuda:
        # fp16 has 3 more bits of mantissa than bf16 at the same speed; activations behind batch norm need no wide range
        return Backend("cuda", "fp16", "an NVIDIA GPU is here")
    features = torch.cpu.get_capabilities() if cpu_features is None else cpu_features
    found = [name for name in BF16_FEATURES if features.get(name)]
    if found:
        return Backend("cpu", "bf16", f"no NVIDIA GPU; the CPU has {found[0]}")
    return Backend("cpu", "fp32", "no NVIDIA GPU; the CPU has no native bf16")


def use_threads(threads: int) -> int:
    """Set torch's compute threads, 0 = one per core that we may use; returns how many there are now.

    They must wait passively (`cli.main` sees to it): spinning ones fell from 376 to 15 crops/s beside a busy process.
    """
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    return torch.get_num_threads()


@dataclass(frozen=True)
class _Judge:
    """What scores now: replaced as one value, so that no batch is scored by half of each."""

    run: Run
    info: ModelInfo
    most: int  # crops per call


class Detector:
    """The model, loaded once and used for every crop of this process."""

    def __init__(self, checkpoint: Checkpoint, backend: Backend) -> None:
        self.checkpoint, self.backend = checkpoint, backend
        form = Lean if backend.device == "cpu" and lean.is_possible() else Folded
        encoder = form(checkpoint.encoder, DTYPES[backend.precision])
        scorer = Scorer(encoder, checkpoint.calibration, cast_first=False)
        self._encoder = scorer.encoder
        run: Run = scorer.to(backend.device)
        info = ModelInfo(model_id=checkpoint.model_id, backend=backend.device, precision=backend.precision)
        self._plain = _Judge(Graphed(run) if backend.device == "cuda" else run, info, MICRO_BATCH[backend.device])
        self._judge = self._plain

    @property
    def info(self) -> ModelInfo:
        """Who judges; backend and precision change when an engine takes over, `model_id` never."""
        return self._judge.info

    @property
    def plain_info(self) -> ModelInfo:
        """Who judges without an engine."""
        return self._plain.info

    @property
    def plain_run(self) -> Run:
        """What scores without an engine."""
        return self._plain.run

    def adopt(self, engine: Loaded) -> None:
        """Let an engine of this model score from the next batch on; safe while another thread scores."""
        about = engine.manifest
        info = ModelInfo(model_id=self.checkpoint.model_id, backend=about.flavour, precision=about.precision)
        self._judge = _Judge(engine.run, info, min(MICRO_BATCH[self.backend.device], about.profile.most))
        log.info("model %s on %s, %s, from now on", *msgspec.structs.astuple(info))

    @classmethod
    def load(cls, settings: Settings) -> "Detector":
        """The detector for these settings; raises BadWeights."""
        use_threads(settings.threads)
        detector = cls(load_checkpoint(Path(settings.weights) if settings.weights else SHIPPED), choose_backend())
        log.info("model %s on %s, %s", detector.info.model_id, detector.info.backend, detector.info.precision)
        return detector

    @classmethod
    def load_for_regions(cls, settings: Settings) -> "Detector":
        """The one that scores tiles of whole pictures; raises BadWeights, also for a checkpoint of faces."""
        path = Path(settings.region_weights) if settings.region_weights else SHIPPED_REGIONS
        detector = cls(load_checkpoint(path), choose_backend())
        subject = detector.checkpoint.card.get("training", {}).get("subject", "scene")
        if subject != "scene":
            msg = f"{path} was trained on {subject}s, not on whole pictures; let LAESCAN_REGION_WEIGHTS name another"
            raise BadWeights(msg)
        log.info("model %s for whole pictures", detector.info.model_id)
        return detector

    @property
    def calibration(self) -> Calibration:
        """What turns raw scores into probabilities and labels."""
        return self.checkpoint.calibration

    def score(self, crops: npt.NDArray[np.uint8]) -> Scores:
        """Score crops (M, 256, 256, 3) uint8 RGB of `faces.align`; M may be 0. Raises ValueError for other shapes."""
        config = self.checkpoint.encoder.config
        if crops.dtype != np.uint8 or crops.shape[1:] != (config.size, config.size, 3):
            msg = f"crops must be (M, {config.size}, {config.size}, 3) uint8, not {crops.shape} {crops.dtype}"
            raise ValueError(msg)
        judge = self._judge
        done = [self._forward(judge, crops[start : start + judge.most]) for start in range(0, len(crops), judge.most)]
        if not done:
            cells = config.size // config.patch // 2 ** (len(config.widths) - 1)
            return Scores(np.zeros(0, np.float32), np.zeros((0, cells, cells), np.float32))
        return Scores(np.concatenate([s.raw for s in done]), np.concatenate([s.attention for s in done]))

    @torch.inference_mode()
    def _forward(self, judge: _Judge, crops: npt.NDArray[np.uint8]) -> Scores:
        x = torch.from_numpy(np.ascontiguousarray(crops)).to(self.backend.device)  # (B, H, W, 3) uint8
        try:
            raw, attention, _ = judge.run(x)
        except (torch.AcceleratorError, torch.OutOfMemoryError):  # the device's trouble and not the engine's
            raise
        except RuntimeError:
            if judge is self._plain:
                raise
            log.exception("the %s engine failed and is not used any more", judge.info.backend)
            self._judge = self._plain
            raw, attention, _ = self._plain.run(x)
        return Scores(raw.cpu().numpy(), attention.cpu().numpy())
