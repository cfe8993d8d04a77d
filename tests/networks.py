"""A tiny network as engines are made of, exported once for all tests; its scores are about 1 wide."""

import functools

import models
import numpy as np
import torch

from scanner.detection.checkpoint import golden_crops
from scanner.detection.folded import Folded, Scorer
from scanner.detection.lae import Encoder, LAEConfig
from trt_engines import export
from trt_engines.build import Network
from trt_engines.manifest import Profile

MODEL_ID = "0123456789abcdef"
PROFILE = Profile(1, 4, 8)
CONFIG = LAEConfig(size=32, widths=(8, 16, 16), latent=16, blocks=1, relative=True)


@functools.cache
def encoder():
    torch.manual_seed(0)
    return models.with_statistics(Encoder(CONFIG), crops())


@functools.cache
def crops(count=8):
    """(count, 32, 32, 3) uint8: corners of the golden crops."""
    golden = golden_crops()
    corners = [golden[:, y : y + 32, x : x + 32] for y in (0, 100) for x in (0, 100)]
    return torch.from_numpy(np.concatenate(corners)[:count].copy())


def module(dtype=torch.float32):
    return Scorer(Folded(encoder(), dtype), models.CALIBRATION, cast_first=True).eval()


def network(**changes):
    return Network(**{"model_id": MODEL_ID, "module": module, "crops": crops(), "forged": None, **changes})


@functools.cache
def program():
    return export.export(module(), crops(3), PROFILE)
