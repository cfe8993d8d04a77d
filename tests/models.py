"""A checkpoint with random weights, for tests that run the model but do not care what it thinks; a clip with a face."""

from pathlib import Path

import media
import numpy as np
import torch
from PIL import Image

from scanner.detection.checkpoint import golden_crops, save_checkpoint
from scanner.detection.lae import Encoder, LAEConfig, Relative
from scanner.verdict import Calibration

CALIBRATION = Calibration(slope=2.0, intercept=0.0, authentic=0.001, manipulated=0.999)  # everything is inconclusive
SURELY_AUTHENTIC = Calibration(slope=2.0, intercept=-9.0, authentic=0.3, manipulated=0.8)
SURELY_MANIPULATED = Calibration(slope=2.0, intercept=9.0, authentic=0.3, manipulated=0.8)


def random_encoder(config=None, seed=0):
    """A random encoder with the statistics of a trained one: scores about 1 wide, and other ones for each crop."""
    torch.manual_seed(seed)
    return with_statistics(Encoder(config or LAEConfig()), torch.from_numpy(golden_crops()))


def with_statistics(encoder, crops):
    """An encoder of random weights, told what crops (B, H, W, 3) uint8 look like to it."""
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # one pass sets the statistics
            torch.nn.init.uniform_(module.weight, 0.5, 1)
        if isinstance(module, Relative):
            torch.nn.init.normal_(module.fc.weight, std=0.05)
    with torch.no_grad():
        encoder.fc.weight *= 10
        encoder.train()(crops.permute(0, 3, 1, 2).float() / 255)
    return encoder.eval()


def random_checkpoint(folder, *, config=None, seed=0, calibration=CALIBRATION, name="tiny", **card):
    """Path of a saved random checkpoint; its raw scores are within -1..1, so the calibration decides the label."""
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, random_encoder(config, seed), calibration, {"name": "random weights, for tests", **card})
    return path


def talking_head(path, count=48):
    """A clip of a portrait that drifts to the right by 2 px a frame: one face in every frame."""
    portrait = np.asarray(Image.open(Path(__file__).parent / "media" / "fellow_1.jpg").convert("RGB"))
    size = portrait.shape[1], portrait.shape[0]
    return media.clip(path, (np.roll(portrait, 2 * number, axis=1) for number in range(count)), size=size, gop=3)
