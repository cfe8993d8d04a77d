"""A trained encoder in; the same function with less work out, fed with the bytes of crops.

    crops (B, 256, 256, 3) uint8 RGB -> Scorer -> raw (B,), attention (B, 16, 16), probability (B,)

One reason: what is run, exported and compiled on every device is this one module, and `lae.py` stays the paper.
"""

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from scanner.detection.lae import ConvBNReLU, Encoder, Relative
from scanner.verdict import Calibration

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Folded(Encoder):
    """An encoder for inference: batch norm in the convolutions, 1/255 and the deviation of colours in the stem.

    The convolutions run in `dtype`; statistics, gate, pooling and latent stay in fp32, so that the mean of the map is
    still a_F.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        with torch.random.fork_rng(devices=[]):  # weights are drawn and thrown away; nobody's random numbers change
            super().__init__(encoder.config)
        self.load_state_dict(copy.deepcopy(encoder.state_dict()), assign=True)
        self.eval().requires_grad_(requires_grad=False)
        self.dtype = dtype
        patch = encoder.config.patch**2
        self.mean = (255 * encoder.mean).repeat(patch, 1, 1)  # bytes lie (row, column, colour) after `space_to_depth`
        self.std = encoder.std  # for nobody: it is in the stem
        self._fold_stages((255 * encoder.std).flatten(), patch)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _fold_stages(self, deviation: Tensor, patch: int) -> None:
        for stage in self.stages:
            block = cast("ConvBNReLU", stage)  # or a Block, which has the same two
            block.conv, block.norm = fuse_conv_bn_eval(block.conv, block.norm), nn.Identity()  # type: ignore[assignment]
            if getattr(block, "relative", None) is not None:
                block.relative = FastRelative(cast("Relative", block.relative))  # type: ignore[assignment]
        stem = cast("ConvBNReLU", self.stages[0]).conv
        # pixel_unshuffle orders channels (colour, row, column), bytes lie (row, column, colour)
        colours = stem.weight.data.unflatten(1, (3, patch)) / deviation[:, None, None, None]
        stem.weight.data = colours.transpose(1, 2).flatten(1, 2)
        self.stages.to(self.dtype)
        for module in self.stages.modules():
            if isinstance(module, FastRelative):  # two small vectors per crop, which scale everything after them
                module.float()

    def features(self, x: Tensor) -> Tensor:
        """x (B, size, size, 3) in 0..255, RGB -> f (B, K, h, w) fp32."""
        x = space_to_depth(x, self.config.patch).permute(0, 3, 1, 2)  # a view: channels_last comes for free
        f: Tensor = self.stages((x.float() - self.mean).to(self.dtype))
        return f.float()


class FastRelative(nn.Module):
    """`lae.Relative` for channels_last, where `std_mean` took a third of the time (15 ms of 8 crops, now 3)."""

    def __init__(self, relative: Relative) -> None:
        super().__init__()
        self.fc = relative.fc

    def forward(self, y: Tensor) -> Tensor:
        """y (B, C, h, w) -> the same shape."""
        places = y.permute(0, 2, 3, 1).flatten(1, 2).float()  # (B, h*w, C); a view but for `float`
        mean = places.mean(1, keepdim=True)
        deviation = (places - mean).square().mean(1).sqrt()  # in two passes: mean of squares - square of mean cancels
        scale, shift = self.fc(torch.cat([mean[:, 0], deviation], 1))[:, :, None, None].to(y.dtype).chunk(2, 1)
        return torch.addcmul(shift, y, 1 + scale.tanh())


class Scorer(nn.Module):
    """What is run, exported and compiled: a folded encoder with its head and calibration."""

    def __init__(self, encoder: Folded, calibration: Calibration, *, cast_first: bool) -> None:
        """`cast_first` makes floats of the bytes before they are moved: TensorRT moves no bytes, a CPU rather does."""
        super().__init__()
        self.encoder, self.calibration, self.cast_first = encoder, calibration, cast_first

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Crops (B, size, size, 3) uint8 RGB -> raw (B,), attention (B, h, w), probability (B,), all fp32."""
        latent = self.encoder(crops.float() if self.cast_first else crops)
        raw = latent.score
        return raw, latent.attention_map, torch.sigmoid(self.calibration.slope * raw + self.calibration.intercept)


def space_to_depth(x: Tensor, patch: int) -> Tensor:
    """(B, H, W, 3) -> (B, H/patch, W/patch, 3 patch^2); on bytes a quarter of `pixel_unshuffle`s traffic."""
    b, h, w, c = x.shape
    rows, columns = h // patch, w // patch
    return x.reshape(b, rows, patch, columns, patch * c).transpose(2, 3).reshape(b, rows, columns, patch * patch * c)
