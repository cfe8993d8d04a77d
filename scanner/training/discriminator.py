"""Pictures in, one logit each out: is it a photograph or a reconstruction? DCGAN style, in training only.

Radford, Metz & Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs", ICLR 2016.
"""

import itertools

import torch
from torch import Tensor, nn

LR = 2e-4  # its own Adam, as the DCGAN paper sets it
BETAS = (0.5, 0.999)


class Discriminator(nn.Module):
    """D(x): x (B, 3, S, S) in 0..1 -> logits (B,), high for a photograph; 11.2 M parameters at width 64, S = 256."""

    def __init__(self, width: int = 64, size: int = 256) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width)
        layers: list[nn.Module] = []
        for number, (c_in, c_out) in enumerate(itertools.pairwise(widths)):  # 256 -> 128 -> ... -> 4, or half of it
            layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=number == 0)]
            layers += [nn.BatchNorm2d(c_out)] if number else []  # none after the first, or D only sees statistics
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, size // 64))
        for module in self.layers:
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of x."""
        return self.layers(x * 2 - 1).flatten(1).mean(1)  # type: ignore[no-any-return]

    def optimizer(self) -> torch.optim.Adam:
        """The optimiser that goes with it."""
        return torch.optim.Adam(self.parameters(), lr=LR, betas=BETAS)
