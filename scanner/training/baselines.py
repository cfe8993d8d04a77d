"""LAE's peers, in our own words and small: MesoInception-4, an Xception-style network, ForensicTransfer.

In and out: `methods.Method`. One reason: a gain is only one beside others that had the same data and the same budget.
"""

import itertools

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scanner.training.methods import MEAN, STD, Batch, Classifier, Method, Seen


class Inception(nn.Module):
    """Four parallel views of the same place, dilated 1 to 3, side by side."""

    def __init__(self, c_in: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        a, b, c, d = widths
        self.views = nn.ModuleList([nn.Sequential(nn.Conv2d(c_in, a, 1), nn.ReLU())])
        for dilation, width in ((1, b), (2, c), (3, d)):
            squeeze = nn.Sequential(nn.Conv2d(c_in, width, 1), nn.ReLU())
            look = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
            self.views.append(nn.Sequential(squeeze, look, nn.ReLU()))
        self.norm = nn.BatchNorm2d(sum(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, h, w) -> (B, sum of widths, h / 2, w / 2)."""
        return nnf.max_pool2d(self.norm(torch.cat([view(x) for view in self.views], 1)), 2)


class MesoInception(Classifier):
    """MesoInception-4 (Afchar et al., "MesoNet", WIFS 2018): 28,615 parameters at 256 px, as published."""

    def __init__(self, size: int = 256) -> None:
        super().__init__()
        self.inceptions = nn.Sequential(Inception(3, (1, 4, 4, 2)), Inception(11, (2, 4, 4, 2)))  # B x 12 x 64 x 64
        self.tail = nn.Sequential(
            *(nn.Conv2d(12, 16, 5, padding=2), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(2)),  # B x 16 x 32 x 32
            *(nn.Conv2d(16, 16, 5, padding=2), nn.ReLU(), nn.BatchNorm2d(16), nn.MaxPool2d(4)),  # B x 16 x 8 x 8
        )
        self.head = nn.Sequential(
            nn.Dropout(0.5), nn.LazyLinear(16), nn.LeakyReLU(0.1), nn.Dropout(0.5), nn.Linear(16, 1)
        )
        with torch.no_grad():
            self.eval().logit(torch.zeros(1, 3, size, size))  # the lazy layer takes its width; 1024 at 256 px

    def logit(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B,)."""
        return self.head(self.tail(self.inceptions(x)).flatten(1))[:, 0]  # type: ignore[no-any-return]


class Separable(nn.Sequential):
    """ReLU, then each channel looked at by itself, then mixed, then normalised."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(c_in, c_in, 3, padding=1, groups=c_in, bias=False),
            nn.Conv2d(c_in, c_out, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )


class Block(nn.Module):
    """Separable convolutions with a shortcut; halves the size when the width changes."""

    def __init__(self, c_in: int, c_out: int, depth: int) -> None:
        super().__init__()
        widths = (c_in, *(c_out,) * depth)
        self.body = nn.Sequential(*(Separable(a, b) for a, b in itertools.pairwise(widths)))
        shrinks = c_in != c_out
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if shrinks else nn.Identity()
        self.shortcut = (
            nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=2, bias=False), nn.BatchNorm2d(c_out))
            if shrinks
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, h, w) -> (B, c_out, h', w')."""
        return self.pool(self.body(x)) + self.shortcut(x)  # type: ignore[no-any-return]


class XceptionStyle(Classifier):
    """Entry, middle and exit flow of Xception (Chollet, CVPR 2017), a third as wide and half as deep, from scratch.

    1.0 M parameters, like the paper encoder of LAE: what counts is the kind of network, not pre-training.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 128, 256), middle: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()),
            *(nn.Conv2d(widths[0], widths[1], 3, padding=1, bias=False), nn.BatchNorm2d(widths[1])),
        )
        entry = [Block(a, b, 2) for a, b in itertools.pairwise(widths[1:])]
        self.flow = nn.Sequential(*entry, *(Block(widths[-1], widths[-1], 3) for _ in range(middle)), nn.ReLU())
        self.head = nn.Linear(widths[-1], 1)

    def logit(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B,)."""
        return self.head(self.flow(self.stem(x)).mean((2, 3)))[:, 0]  # type: ignore[no-any-return]


class ForensicTransfer(Method):
    """ForensicTransfer (Cozzolino et al., 2018): an autoencoder whose latent is a tensor, 128 x S/16 x S/16.

    64 channels wake for reals, 64 for fakes; the other half is zeroed before decoding. L_rec (pixels) + L_lat.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, widths: tuple[int, ...] = (8, 16, 32, 64, 128)) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)
        down: list[nn.Module] = []
        for number, (a, b) in enumerate(itertools.pairwise((3, *widths))):
            down += [nn.Conv2d(a, b, 3, stride=min(2, 1 + number), padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        self.encoder = nn.Sequential(*down[:-1])  # no ReLU at the end: activations are mean |z|
        up: list[nn.Module] = []
        for a, b in itertools.pairwise(widths[::-1]):
            up += [nn.Upsample(scale_factor=2), nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], 3, 3, padding=1), nn.Sigmoid())
        self.units = widths[-1] // 2

    def _seen(self, z: Tensor) -> Seen:
        real, fake = (part.abs().mean(1) for part in z.split(self.units, 1))  # (B, h, w)
        a_real, a_fake = real.mean((1, 2)), fake.mean((1, 2))
        return Seen(a_fake - a_real, a_real, a_fake, fake)

    def look(self, x: Tensor) -> Seen:
        """Activations of both halves; the map is where the fake half wakes."""
        return self._seen(self.encoder((x - self.mean) / self.std))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """L_lat + L_rec on the whole batch; masks are of no use to it."""
        z = self.encoder((batch.x - self.mean) / self.std)
        seen, real = self._seen(z), batch.real
        latent = ((seen.a_real - real).abs() + (seen.a_fake - (1 - real)).abs()).mean()
        keep = torch.stack([real, 1 - real], 1).repeat_interleave(self.units, 1)  # (B, 128): the right half
        return {"latent": latent, "pixel": nnf.l1_loss(self.decoder(z * keep[:, :, None, None]), batch.x)}
