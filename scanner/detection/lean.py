"""A trained encoder in; `Folded` for CPUs, where half of its time went into memory, out.

    crops (B, 256, 256, 3) uint8 -> a few at a time while they are large -> all together once small -> f (B, K, 16, 16)

One reason: what suits a CPU (its cache, oneDNN's packed weights) suits no export and no GPU, so it stands apart.
Measured on one AVX-512 core, fp32, 8 crops: 8.1 core-ms a crop became 5.0, at the same scores but for 1e-6.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scanner.detection.folded import Folded
from scanner.detection.lae import Block, ConvBNReLU, Encoder
from scanner.detection.winograd import Winograd, suits

SMALL_PLACES = 32 * 32
"""Feature maps of up to so many places go on together: 8 crops of them are 2 MB, what a core has as L2."""
FEW = 4
"""Larger ones are made for so many crops at a time, or one per thread: each call of a convolution costs 30 us, and with
8 crops at a time memory is fetched anew (4,200 page faults)."""
MANY = 4
"""Crops from which wide layers run as `Winograd`: its weights are four times as large, and all crops read them once."""
NARROW, ABREAST = 16, 16
"""Up to so many channels, statistics are taken of so many places abreast: vectors are longer, 105 us became 60."""


def is_possible() -> bool:
    """Whether this build of torch has what it takes: oneDNN's convolution with packed weights, made for `inductor`."""
    packs = hasattr(torch._C._nn, "mkldnn_reorder_conv2d_weight")  # noqa: SLF001 - nothing public packs weights
    return bool(packs and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise"))


@dataclass(frozen=True)
class Convolution:
    """A convolution whose weights were packed once: at each call that, and a ReLU by itself, took 7 % of all time."""

    weight: Tensor  # as oneDNN likes it
    bias: Tensor
    stride: list[int]  # down, right
    padding: list[int]
    then: str  # "relu" or "none"

    @classmethod
    def packed(
        cls, weight: Tensor, bias: Tensor, *, stride: Sequence[int], padding: Sequence[int], relu: bool
    ) -> "Convolution":
        """The same from a weight (c_out, c_in, height, width) as `nn.Conv2d` has it."""
        stride, padding = list(stride), list(padding)
        plain = weight.contiguous(memory_format=torch.channels_last).to_mkldnn()
        best = torch._C._nn.mkldnn_reorder_conv2d_weight(plain, padding, stride, [1, 1], 1)  # noqa: SLF001
        return cls(best, bias, stride, padding, "relu" if relu else "none")

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, c_in, H, W), channels_last -> (B, c_out, h, w)."""
        one = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001
        y: Tensor = one(x, self.weight, self.bias, self.padding, self.stride, [1, 1], 1, self.then, [], "")
        return y


@dataclass(frozen=True)
class Modulation:
    """`lae.Relative`, what `ConvBNReLU` adds before it, and ReLU: in place.

    What is added moves a mean and no deviation, so both become one scale and one shift. They and the sum come out of
    one matrix: its columns are scale, shift, sum; its rows the means of the output and the input, the deviations.
    """

    matrix: Tensor  # (2 C + c_in, 3 C), or (2 C, 3 C) where the input is not looked at
    bias: Tensor  # (3 C,)
    looks_at_input: bool

    @classmethod
    def of(cls, layer: ConvBNReLU) -> "Modulation | None":
        """A folded layer's; None where it has none."""
        if layer.context is None and layer.relative is None:
            return None
        c = layer.conv.out_channels
        context = torch.zeros(c, 0) if layer.context is None else layer.context.weight.float()
        matrix, bias = torch.zeros(3 * c, 2 * c + context.shape[1]), torch.zeros(3 * c)
        if layer.relative is not None:
            fc = layer.relative.fc
            matrix[: 2 * c] = torch.cat([fc.weight[:, :c], fc.weight[:, :c] @ context, fc.weight[:, c:]], 1)
            bias[: 2 * c] = fc.bias
        matrix[2 * c :, c:-c] = context
        return cls(matrix.T.contiguous(), bias, layer.context is not None)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        """x (B, c_in, H, W) what came into the convolution, y (B, C, h, w) what came out and is changed."""
        c = y.shape[1]
        means, deviations = (torch.stack(of_each) for of_each in zip(*map(moments, y.split(1)), strict=True))  # (B, C)
        given = [x.mean((2, 3), dtype=torch.float32)] if self.looks_at_input else []
        all_three = torch.addmm(self.bias, torch.cat([means, *given, deviations], 1), self.matrix)[:, None]
        scale, shift = all_three[..., :c].tanh_().add_(1), all_three[..., c : 2 * c]  # `chunk` takes ten times as long
        shift.addcmul_(all_three[..., 2 * c :], scale)
        places = rows(y)
        torch.addcmul(shift.to(y.dtype), places, scale.to(y.dtype), out=places)
        y.relu_()


@dataclass(frozen=True)
class Step:
    """A convolution and what follows it until the next one."""

    conv: Convolution | Winograd
    modulation: Modulation | None

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, c_in, H, W), channels_last -> (B, c_out, h, w), channels_last."""
        y = self.conv(x)
        if self.modulation is not None:
            self.modulation(x, y)
        return y


class Lean(Folded):
    """`Folded` with less memory traffic; on CPUs only, and only where `is_possible`.

    - Early feature maps (1 MB a crop) are made for a few crops at a time, so that memory that was just freed is used
      again (before, 13,000 page faults for 8 crops).
    - Mean and deviation come from batch norm's own statistics: two passes that write nothing.
    - Wide layers late in the network run as `Winograd` once there are crops enough.
    - Blocks add their input by a one in the middle of their filters.
    - No pixel is moved or shifted: neighbouring columns are channels as they lie, neighbouring rows are reached by a
      filter twice as high, and the mean colour lies around the picture instead of being taken off it.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype) -> None:
        super().__init__(encoder, dtype)
        p, size = self.config.patch, self.config.size
        colour = self.mean.flatten()[:3].repeat(p)  # (3 p,), 0..255
        self._frame = colour.to(dtype).expand(1, size + 2 * p, size // p + 2, 3 * p).contiguous()
        first, *others = cast("list[ConvBNReLU | Block]", list(self.stages))
        self._early = [self._stem(cast("ConvBNReLU", first), colour)]
        self._late, self._late_of_many = list[Step](), list[Step]()
        side = size // p
        for layer in others:
            step, stride = _step(layer), layer.conv.stride[0]
            if side**2 <= SMALL_PLACES:
                self._late.append(step)
                tiled = suits(layer.conv.weight, side, stride)
                self._late_of_many.append(_step(layer, tiled=True) if tiled else step)
            else:
                self._early.append(step)
            side //= stride

    def _stem(self, layer: ConvBNReLU, colour: Tensor) -> Step:
        p = self.config.patch
        # (c_out, row, (column, colour), 3, 3) -> (c_out, (column, colour), 3 rows of p each, 3)
        weight = layer.conv.weight.unflatten(1, (p, 3 * p)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        bias = _bias(layer).float() - (weight.float().sum((2, 3)) * colour).sum(1)  # less what the mean colour gives
        then = Modulation.of(layer)
        conv = Convolution.packed(
            weight,
            bias.to(weight.dtype),
            stride=(p, 1),
            padding=(0, 0),  # the picture brings its frame
            relu=then is None,
        )
        return Step(conv, then)

    def features(self, x: Tensor) -> Tensor:
        """x (B, size, size, 3) uint8, RGB -> f (B, K, h, w) fp32."""
        p, at_once = self.config.patch, min(max(torch.get_num_threads(), FEW), len(x))
        framed = torch.cat([self._frame] * at_once)
        done = []
        for crops in x.unflatten(2, (-1, p)).flatten(3).split(at_once):  # (n, size, size / p, 3 p)
            some = framed[: len(crops)]
            some[:, p:-p, 1:-1].copy_(crops)
            done.append(_through(self._early, some.permute(0, 3, 1, 2)))
        late = self._late_of_many if len(x) >= MANY else self._late
        return _through(late, torch.cat(done)).float()


def _step(layer: ConvBNReLU | Block, *, tiled: bool = False) -> Step:
    """A folded layer as a step."""
    weight, then = layer.conv.weight, None
    if isinstance(layer, ConvBNReLU):
        then = Modulation.of(layer)
    else:
        itself = torch.eye(len(weight))[:, :, None, None]
        weight = (weight.float() + nnf.pad(itself, (1, 1, 1, 1))).to(weight.dtype)
    bias, relu = _bias(layer), then is None
    if tiled:
        return Step(Winograd.of(weight, bias, relu=relu), then)
    return Step(Convolution.packed(weight, bias, stride=layer.conv.stride, padding=(1, 1), relu=relu), then)


def _bias(layer: ConvBNReLU | Block) -> Tensor:
    """What the folding of batch norm left."""
    assert layer.conv.bias is not None  # noqa: S101 - it is folded
    return layer.conv.bias


def _through(steps: list[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step(x)
    return x


def rows(x: Tensor) -> Tensor:
    """(B, C, h, w) as it lies in channels_last -> (B, h*w, C), a view, or an error where it lies otherwise."""
    return x.permute(0, 2, 3, 1).view(len(x), -1, x.shape[1])


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (C,) fp32 of (1, C, h, w), channels_last: 0.06 of what `std_mean` takes."""
    c, places = x.shape[1], x.shape[2] * x.shape[3]
    if c > NARROW or places % ABREAST:
        mean, variance = _statistics(rows(x))
        return mean, variance.sqrt_()
    means, variances = _statistics(x.permute(0, 2, 3, 1).reshape(1, -1, ABREAST * c))
    mean, between = _statistics(means.view(1, ABREAST, c))
    return mean, variances.view(ABREAST, c).mean(0).add_(between).sqrt_()


def _statistics(places: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) fp32 of (1, n, C): two passes that write nothing."""
    is_wide, c = places.dtype is torch.float32, places.shape[2]
    like = (None, None) if is_wide else (torch.zeros(c), torch.zeros(c))  # answers are of their type
    mean, variance = torch.batch_norm_update_stats(places[:, :, None].permute(0, 3, 1, 2), like[0], like[1], 0.0)
    return mean, variance
