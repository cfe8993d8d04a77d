"""Xception (Chollet, CVPR 2017, figure 5) with random weights, folded for inference: the yardstick of bench_scan.py.

The usual backbone of deepfake detectors since FaceForensics++ (2019), at its own input size of 299 x 299.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE = 299


class Separable(nn.Module):
    """3x3 depthwise, then 1x1 convolution; batch norm follows and is folded into the latter."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False)
        self.pointwise = folded(nn.Conv2d(c_in, c_out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class Block(nn.Module):
    """Separable convolutions, each after a ReLU, with a shortcut; `stride` 2 ends in pooling."""

    def __init__(self, *widths: int, stride: int = 1, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_in, c_out in itertools.pairwise(widths):
            layers += [nn.ReLU(), Separable(c_in, c_out)]
        layers = layers if relu_first else layers[1:]
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, 1))
        self.body = nn.Sequential(*layers)
        same = widths[0] == widths[-1] and stride == 1
        self.shortcut = nn.Identity() if same else folded(nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


def folded(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution with the batch norm that follows it."""
    return fuse_conv_bn_eval(conv.eval(), nn.BatchNorm2d(conv.out_channels).eval())


def xception() -> nn.Module:
    """(B, 3, 299, 299) -> one logit (B, 1); 20.8 M parameters, 8.4 GMAC, ready to run."""
    entry = [
        folded(nn.Conv2d(3, 32, 3, 2, bias=False)),
        nn.ReLU(),
        folded(nn.Conv2d(32, 64, 3, bias=False)),
        nn.ReLU(),
        Block(64, 128, 128, stride=2, relu_first=False),
        Block(128, 256, 256, stride=2),
        Block(256, 728, 728, stride=2),
    ]
    middle = [Block(728, 728, 728, 728) for _ in range(8)]
    tail = [
        Block(728, 728, 1024, stride=2),
        Separable(1024, 1536),
        nn.ReLU(),
        Separable(1536, 2048),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2048, 1),
    ]
    torch.manual_seed(0)
    return nn.Sequential(*entry, *middle, *tail).eval().to(memory_format=torch.channels_last)
