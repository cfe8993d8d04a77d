"""A 3x3 convolution's weights in; the same convolution with a quarter of the multiplications out.

    x (B, c_in, h, w) -> tiles of 6x6, two places in common -> 36 matrix products -> tiles of 4x4 -> (B, c_out, h, w)

One reason: oneDNN's convolutions are as fast as a matrix product, so that only fewer multiplications are faster.
Measured on one AVX-512 core, fp32, 8 crops of 128 channels by 16x16: 0.43 core-ms a crop became 0.26.
Method: Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, F(4x4, 3x3).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

OUT, TILE = 4, 6  # places of a side: what a tile gives, what it looks at
TO_TILE = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
OF_FILTER = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
FROM_TILE = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
"""In one direction: FROM_TILE @ ((OF_FILTER @ three weights) * (TO_TILE @ six places)) = four places."""

WIDE = 128
"""Channels from which it pays: with 64 the transforms took what the products saved, with 32 more."""


def suits(weight: Tensor, side: int, stride: int) -> bool:
    """Whether it gives what the convolution gives, and sooner; in bf16 its sums would lose the digits that are left."""
    fits = weight.shape[2:] == (3, 3) and stride == 1 and side % OUT == 0
    return fits and min(weight.shape[:2]) >= WIDE and weight.dtype is torch.float32


@dataclass(frozen=True)
class Winograd:
    """A 3x3 convolution, padded by one place, ready to run."""

    weight: Tensor  # (36, c_in, c_out)
    bias: Tensor  # (c_out,)
    relu: bool
    to_tile: Tensor  # (36, 36)
    from_tile: Tensor  # (16, 36)

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, *, relu: bool) -> "Winograd":
        """The same from a weight (c_out, c_in, 3, 3) as `nn.Conv2d` has it."""
        taps = weight.double().permute(2, 3, 1, 0)  # (3, 3, c_in, c_out)
        of_tile = (_both(OF_FILTER) @ taps.reshape(9, -1)).view(TILE**2, *taps.shape[2:])
        return cls(of_tile.float(), bias, relu, _both(TO_TILE).float(), _both(FROM_TILE).float())

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, c_in, h, w), channels_last, h and w multiples of 4 -> (B, c_out, h, w), channels_last."""
        b, c_in, h, w = x.shape
        padded = nnf.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        places = padded.unfold(1, TILE, OUT).unfold(2, TILE, OUT).permute(4, 5, 0, 1, 2, 3)
        tiles = (self.to_tile @ places.reshape(TILE**2, -1)).view(TILE**2, -1, c_in)  # (36, tiles, c_in)
        made = self.from_tile @ torch.bmm(tiles, self.weight).flatten(1)
        in_order = made.view(OUT, OUT, b, h // OUT, w // OUT, -1).permute(2, 3, 0, 4, 1, 5)
        y = torch.add(in_order, self.bias, out=x.new_empty(in_order.shape)).view(b, h, w, -1).permute(0, 3, 1, 2)
        return y.relu_() if self.relu else y


def _both(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """For rows and columns at once, in fp64."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one)
