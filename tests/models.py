"""A checkpoint with random weights, for tests that run the model but do not care what it thinks."""

import torch

from scanner.checkpoint import save_checkpoint
from scanner.lae import Encoder, LAEConfig
from scanner.verdict import Calibration

CALIBRATION = Calibration(slope=8.0, intercept=0.0, authentic=0.3, manipulated=0.8)


def random_encoder(config=None, seed=0):
    """An encoder whose batch norms have seen something, so that folding them is not a no-op."""
    torch.manual_seed(seed)
    encoder = Encoder(config or LAEConfig())
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return encoder.eval()


def random_checkpoint(folder, *, config=None, seed=0):
    """Path of a saved random checkpoint."""
    path = folder / "tiny.safetensors"
    save_checkpoint(path, random_encoder(config, seed), CALIBRATION, {"name": "random weights, for tests"})
    return path
