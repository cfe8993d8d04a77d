"""EfficientNet-B4 (Tan and Le, ICML 2019) with random weights, folded for inference: a yardstick of bench_encoder.py.

The backbone of the DFDC winners and of most detectors since 2020, at its own input size of 380 x 380.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 380
WIDER, DEEPER = 1.4, 1.8  # of B4, times B0
STAGES = (  # of B0: kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def conv(c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution with the batch norm that follows it."""
    plain = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return fuse_conv_bn_eval(plain.eval(), nn.BatchNorm2d(c_out).eval())


class Block(nn.Module):
    """Expand, depthwise, squeeze and excite, project."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner, squeezed = c_in * expansion, max(1, c_in // 4)
        self.expand = nn.Sequential(conv(c_in, inner), nn.SiLU(inplace=True)) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Sequential(conv(inner, inner, kernel, stride, inner), nn.SiLU(inplace=True))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(inner, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, inner, 1),
            nn.Sigmoid(),
        )
        self.project = conv(inner, c_out)
        self.is_residual = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        y = self.project(y * self.squeeze(y))
        return x + y if self.is_residual else y


def widened(channels: int) -> int:
    """Times 1.4, to a multiple of 8, never more than a tenth less."""
    wanted = channels * WIDER
    near = max(8, int(wanted + 4) // 8 * 8)
    return near + 8 if near < 0.9 * wanted else near


def efficientnet_b4() -> nn.Module:
    """(B, 3, 380, 380) -> one logit (B, 1); 17.5 M parameters, 4.4 GMAC, ready to run."""
    torch.manual_seed(0)
    width = widened(32)
    layers: list[nn.Module] = [conv(3, width, 3, 2), nn.SiLU(inplace=True)]
    for kernel, first_stride, expansion, channels, blocks in STAGES:
        for number in range(math.ceil(blocks * DEEPER)):
            stride = first_stride if number == 0 else 1
            layers.append(Block(width, widened(channels), kernel, stride, expansion))
            width = widened(channels)
    head = widened(1280)
    layers += [conv(width, head), nn.SiLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(head, 1)]
    return nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
