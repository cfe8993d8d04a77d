"""The Locality-aware AutoEncoder (LAE), all of it: crops in, latent activations and an attention map out.

    x (B, 3, 256, 256) --encoder--> f (B, K, 16, 16) --gate, pool--> (B, K) --fc, no bias--> z (B, 128)
    z = [T | F]: real half and fake half;  a_T, a_F = mean |z| of each half;  fake if a_F > a_T
    M (B, 16, 16): the part of a_F that each place of the picture contributes;  mean of M = a_F, exactly
    z --decoder--> reconstruction (B, 3, 256, 256), in training only

Method: Du, Pentyala, Li, Hu, "Towards Generalizable Deepfake Detection with Locality-aware AutoEncoder", CIKM 2020.
The paper gives no layer table; where it is silent the choice is a named field of `LAEConfig`.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


@dataclass(frozen=True)
class LAEConfig:
    """Every choice where the paper is silent.

    The defaults are our strong and fast form; `LAEConfig.paper()` is the literal one.
    """

    size: int = 256  # input height and width, px
    widths: tuple[int, ...] = (
        16,
        32,
        64,
        128,
    )  # channels from the stem to f; each step after the first halves the size
    patch: int = 2  # the stem sees 2x2 px as channels; 1 costs 4x the memory traffic, 4 learns half as fast
    highpass_stem: bool = True  # 3 of 4 stem filters start with zero mean: forgery traces are faint, high in frequency
    context: bool = True  # add a projection of the global mean to each stage: "smoother than the rest" needs the rest
    blocks: int = 0  # residual 3x3 convolutions at the end of each stage after the stem
    relative: bool = False  # scale and shift features by their own mean and deviation over the crop, see `Relative`
    latent: int = 128  # units of z; the first half is T (real), the second F (fake)
    z_act: Literal["relu", "none"] = "relu"  # with mixed signs the |z|-weighted map is not the evidence of the score
    pool: Literal["mean", "gated"] = "gated"  # gated: a softmax over places lets a small forgery fill the pooled vector
    attention: Literal["sign", "abs"] = "sign"  # sign: mean of M is a_F exactly; abs: the |z|-weighted form

    @classmethod
    def paper(cls) -> "LAEConfig":
        """The literal reading: full-size stem, mean pooling, |z|-weighted map."""
        return cls(
            widths=(16, 32, 64, 128, 256),
            patch=1,
            highpass_stem=False,
            context=False,
            pool="mean",
            attention="abs",
        )


class Latent(NamedTuple):
    """What the encoder knows of a batch."""

    z: Tensor  # (B, latent)
    a_real: Tensor  # (B,) a_T
    a_fake: Tensor  # (B,) a_F
    attention_map: Tensor  # (B, h, w)
    evidence: Tensor  # (B, h, w) what each place would score by itself, before the gate weighs the places

    @property
    def score(self) -> Tensor:
        """Raw ranking score a_F - a_T, (B,); above 0 is the paper's "fake"."""
        return self.a_fake - self.a_real


class ConvBNReLU(nn.Module):
    """3x3 convolution, batch norm, optionally a projection of the global mean and `Relative`, ReLU."""

    def __init__(
        self, c_in: int, c_out: int, *, stride: int = 1, context: bool = False, relative: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(c_out)
        self.context = nn.Linear(c_in, c_out, bias=False) if context else None
        self.relative = Relative(c_out) if relative else None

    def forward(self, x: Tensor) -> Tensor:
        """x (B, c_in, H, W) -> (B, c_out, H / stride, W / stride)."""
        y = self.norm(self.conv(x))  # (B, c_out, h, w)
        if self.context is not None:
            y = y + self.context(x.mean((2, 3)))[:, :, None, None]
        if self.relative is not None:
            y = self.relative(y)
        return nnf.relu(y, inplace=True)


class Relative(nn.Module):
    """Features scaled and shifted by a projection of their own mean and deviation over the crop.

    A forgery is smoother, sharper or noisier than *the rest of its picture*; pictures differ among each other by more.
    Measured: without it 95 % of forgeries scored above their own original, but only 85 % above any original.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(2 * channels, 2 * channels)
        nn.init.zeros_(self.fc.weight)  # begins as the identity, so that it can join a trained encoder
        nn.init.zeros_(self.fc.bias)

    def forward(self, y: Tensor) -> Tensor:
        """y (B, C, h, w) -> the same shape."""
        deviation, mean = torch.std_mean(y.float(), (2, 3), correction=0)  # (B, C) each; in bf16 3 digits would stay
        scale, shift = self.fc(torch.cat([mean, deviation], 1))[:, :, None, None].to(y.dtype).chunk(2, 1)
        return torch.addcmul(shift, y, 1 + scale.tanh())  # 0..2: noise in must not blow up from stage to stage


class Block(nn.Module):
    """A residual 3x3 convolution that begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, h, w) -> the same shape."""
        return nnf.relu(x + self.norm(self.conv(x)), inplace=True)


class Encoder(nn.Module):
    """Crops to latent; the only part that inference needs."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: LAEConfig) -> None:
        super().__init__()
        self.config = config
        # Normalisation lives in the model so that no backend can be fed wrongly scaled pixels (ImageNet statistics).
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        stem = ConvBNReLU(3 * config.patch**2, config.widths[0], relative=config.relative)
        if config.highpass_stem:  # batch norm then brings the faint residual to unit variance, at no cost
            with torch.no_grad():
                colour = stem.conv.weight[config.widths[0] // 4 :].unflatten(1, (3, -1))  # (n, 3, patch^2, 3, 3)
                colour -= colour.mean((2, 3, 4), keepdim=True)
        layers: list[nn.Module] = [stem]
        for c_in, c_out in pairwise(config.widths):
            layers += [
                ConvBNReLU(c_in, c_out, stride=2),
                ConvBNReLU(c_out, c_out, context=config.context, relative=config.relative),
                *(Block(c_out) for _ in range(config.blocks)),
            ]
        self.stages = nn.Sequential(*layers)
        features = config.widths[-1]
        self.gate = nn.Conv2d(features, 1, 1) if config.pool == "gated" else None
        # No bias: with mean pooling before it, each unit of z is then exactly the mean of its own map.
        self.fc = nn.Linear(features, config.latent, bias=False)
        nn.init.normal_(self.fc.weight, std=0.05)  # a_T, a_F start near 0.25, below the target 1, none dead

    def features(self, x: Tensor) -> Tensor:
        """x (B, 3, size, size) in 0..1 -> f (B, K, h, w)."""
        x = (x - self.mean) / self.std
        x = nnf.pixel_unshuffle(x, self.config.patch)  # (B, 3 * patch^2, size / patch, size / patch)
        f: Tensor = self.stages(x)
        return f

    def gated(self, f: Tensor) -> Tensor:
        """f weighted by a softmax over its places, scaled to mean 1; f itself under mean pooling."""
        if self.gate is None:
            return f
        weight: Tensor = self.gate(f).flatten(1).softmax(1) * (f.shape[2] * f.shape[3])  # (B, h*w)
        return f * weight.view(f.shape[0], 1, *f.shape[2:])

    def forward(self, x: Tensor) -> Latent:
        """x (B, 3, size, size) in 0..1, RGB -> Latent."""
        f_local = self.features(x)
        f = self.gated(f_local)
        z = self.fc(f.mean((2, 3)))  # (B, latent)
        if self.config.z_act == "relu":
            z = nnf.relu(z)
        half = self.config.latent // 2
        a_real, a_fake = z[:, :half].abs().mean(1), z[:, half:].abs().mean(1)
        units_real, units_fake = self.fc.weight[:half].mean(0), self.fc.weight[half:].mean(0)  # (K,)
        evidence = torch.einsum("k,bkhw->bhw", units_fake - units_real, f_local)
        return Latent(z, a_real, a_fake, self._attention_map(z[:, half:], f), evidence)

    def _attention_map(self, z_fake: Tensor, f: Tensor) -> Tensor:
        """M = sum over c in F of weight_c * M_c, M_c = sum_k W[c, k] f_k, without gradients of gradients (paper §3.3).

        sign form: weight = sign(z_c) / |F|, so mean of M = a_F; abs form: weight = |z_c| / |F|.
        """
        weight = z_fake.sign() if self.config.attention == "sign" else z_fake.abs()
        units = self.fc.weight[self.config.latent // 2 :]  # (|F|, K)
        return torch.einsum("bk,bkhw->bhw", weight @ units / units.shape[0], f)


class Decoder(nn.Module):
    """Latent to reconstruction (B, 3, size, size) in 0..1; no skips, so that everything passes through z."""

    def __init__(self, config: LAEConfig) -> None:
        super().__init__()
        self.side = config.size // 64  # places that six doublings lead to a picture
        self.fc = nn.Linear(config.latent, 256 * self.side**2)
        widths = (256, 128, 64, 32, 16, 16)
        blocks: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):  # size / 64 -> ... -> size / 2
            blocks += [nn.Upsample(scale_factor=2, mode="nearest"), ConvBNReLU(c_in, c_out)]
        self.blocks = nn.Sequential(*blocks)
        # The last doubling is a sub-pixel convolution: a full-size one costs as much as all the others together.
        self.out = nn.Sequential(nn.Conv2d(widths[-1], 12, 3, padding=1), nn.PixelShuffle(2), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        """z (B, latent) -> reconstruction (B, 3, size, size) in 0..1."""
        x = self.fc(z).view(-1, 256, self.side, self.side)
        return self.out(self.blocks(x))  # type: ignore[no-any-return]


class LAE(nn.Module):
    """Encoder and decoder together, as trained."""

    def __init__(self, config: LAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or LAEConfig()
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def forward(self, x: Tensor) -> tuple[Latent, Tensor]:
        """x (B, 3, size, size) in 0..1 -> (latent, reconstruction)."""
        latent = self.encoder(x)
        return latent, self.decoder(latent.z)
