"""Crops in, raw scores and attention maps out, by the fastest backend that this machine has.

    crops (M, 256, 256, 3) uint8 RGB -> micro-batches -> folded encoder -> raw (M,), attention (M, 16, 16)

One reason: what makes inference fast without changing what it says stands here, and `lae.py` stays the paper.
Only the encoder runs: verdict and map come from the latent (2.4x less time than with the decoder).
"""

import copy
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from scanner.contract import ModelInfo
from scanner.detection.checkpoint import SHIPPED, SHIPPED_REGIONS, Checkpoint, load_checkpoint
from scanner.detection.lae import Encoder, Relative
from scanner.errors import BadWeights
from scanner.settings import Settings
from scanner.verdict import Calibration

log = logging.getLogger(__name__)

MICRO_BATCH = {"cpu": 8, "cuda": 128}
"""Crops per forward. CPU: 6.5, 5.6, 4.7, 4.6, 4.4 core-ms per crop for 1, 2, 4, 8, 16; memory grows with it."""
BF16_FEATURES = ("avx512_bf16", "amx_bf16", "bf16")
"""CPU features with which bf16 is faster than fp32; without them it is emulated, at several times the cost."""
DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


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


class Detector:
    """The model, loaded once and used for every crop of this process."""

    def __init__(self, checkpoint: Checkpoint, backend: Backend) -> None:
        self.checkpoint, self.backend = checkpoint, backend
        self.info = ModelInfo(model_id=checkpoint.model_id, backend=backend.device, precision=backend.precision)
        self._encoder = fold(checkpoint.encoder, DTYPES[backend.precision]).to(backend.device)

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
        step = MICRO_BATCH[self.backend.device]
        done = [self._forward(crops[start : start + step]) for start in range(0, len(crops), step)]
        if not done:
            cells = config.size // config.patch // 2 ** (len(config.widths) - 1)
            return Scores(np.zeros(0, np.float32), np.zeros((0, cells, cells), np.float32))
        return Scores(np.concatenate([s.raw for s in done]), np.concatenate([s.attention for s in done]))

    @torch.inference_mode()
    def _forward(self, crops: npt.NDArray[np.uint8]) -> Scores:
        x = torch.from_numpy(np.ascontiguousarray(crops)).to(self.backend.device)  # (B, H, W, 3) uint8
        x = space_to_depth(x, self.checkpoint.encoder.config.patch)
        latent = self._encoder(x.permute(0, 3, 1, 2))  # a view: channels_last comes for free
        return Scores(latent.score.cpu().numpy(), latent.attention_map.cpu().numpy())


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """(B, H, W, 3) -> (B, H/patch, W/patch, 3 patch^2); on bytes a quarter of `pixel_unshuffle`s traffic."""
    b, h, w, c = x.shape
    rows, columns = h // patch, w // patch
    return x.view(b, rows, patch, columns, patch * c).transpose(2, 3).reshape(b, rows, columns, patch * patch * c)


def fold(encoder: Encoder, dtype: torch.dtype) -> Encoder:
    """The same function with less work, fed with bytes 0..255 after `space_to_depth`, channels first.

    Batch norm goes into the convolutions, the scale 1/255 into the normalisation. The convolutions run in `dtype`;
    gate, pooling and latent stay in fp32, so that the mean of the map is still a_F.
    """
    folded = copy.deepcopy(encoder).eval()
    for block in folded.stages:
        conv, norm = cast("nn.Conv2d", block.conv), cast("nn.BatchNorm2d", block.norm)
        block.conv, block.norm = fuse_conv_bn_eval(conv, norm), nn.Identity()
    pixels = encoder.config.patch**2
    stem = cast("nn.Conv2d", folded.stages[0].conv)
    # pixel_unshuffle orders channels (colour, row, column), bytes lie (row, column, colour)
    stem.weight.data = stem.weight.data.unflatten(1, (3, pixels)).transpose(1, 2).flatten(1, 2)
    folded.mean, folded.std = ((255 * v).repeat(pixels, 1, 1) for v in (encoder.mean, encoder.std))
    folded.config = replace(encoder.config, patch=1)
    if dtype != torch.float32:
        folded.stages = nn.Sequential(_Cast(dtype), *folded.stages.to(dtype), _Cast(torch.float32))
        for module in folded.stages.modules():
            if isinstance(module, Relative):  # two small vectors per crop, which scale everything after them
                module.float()
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Cast(nn.Module):
    """Changes the precision between two stages."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)
