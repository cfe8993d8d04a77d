"""Pixels in, probabilities, box offsets and landmarks out: the three small networks of the face cascade.

Shapes and layers are those of Zhang et al. (2016), so that the published weights fit; `mtcnn` slides, cuts and
chooses around them. For inference only.
"""

import torch
from torch import Tensor, nn


class Halved(nn.Module):
    """`MaxPool2d(2, 2, ceil_mode=True)`, first rows, then columns: three times as fast where channels are few."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h / 2, w / 2), rounded up."""
        return _larger_of_two(_larger_of_two(x, 2), 3)


def _larger_of_two(x: Tensor, axis: int) -> Tensor:
    """The maximum of neighbours 2i and 2i + 1 along an axis; a last odd one stays as it is."""
    shape = list(x.shape)
    pairs, shape[axis] = shape[axis] // 2, (shape[axis] + 1) // 2
    larger = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    even, odd = (x.narrow(axis, i, x.shape[axis] - i) for i in (0, 1))
    step = (slice(None),) * axis + (slice(None, None, 2),)
    torch.maximum(even[step].narrow(axis, 0, pairs), odd[step], out=larger.narrow(axis, 0, pairs))
    if pairs < shape[axis]:
        larger.select(axis, -1).copy_(x.select(axis, -1))
    return larger


class PNet(nn.Module):
    """(B, 3, h, w) -> face probability (B, h', w') and box offsets (B, 4, h', w'), one window per 2 px."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3),
            nn.PReLU(10),
            Halved(),
            nn.Conv2d(10, 16, 3),
            nn.PReLU(16),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
        )
        self.face = nn.Conv2d(32, 2, 1)
        self.box = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels come as (v - 127.5) / 128."""
        f = self.features(x)
        return self.face(f).softmax(1)[:, 1], self.box(f)


class RNet(nn.Module):
    """(B, 3, 24, 24) -> face probability (B,) and box offsets (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 28, 3),
            nn.PReLU(28),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(28, 48, 3),
            nn.PReLU(48),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(48, 64, 2),
            nn.PReLU(64),
            nn.Flatten(),
            nn.Linear(576, 128),
            nn.PReLU(128),
        )
        self.face = nn.Linear(128, 2)
        self.box = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels come as (v - 127.5) / 128."""
        f = self.features(x)
        return self.face(f).softmax(1)[:, 1], self.box(f)


class ONet(nn.Module):
    """(B, 3, 48, 48) -> face probability (B,), box offsets (B, 4), landmarks (B, 10) as x1..x5, y1..y5 of the box."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.PReLU(32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(64, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(64, 128, 2),
            nn.PReLU(128),
            nn.Flatten(),
            nn.Linear(1152, 256),
            nn.PReLU(256),
        )
        self.face = nn.Linear(256, 2)
        self.box = nn.Linear(256, 4)
        self.landmarks = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels come as (v - 127.5) / 128."""
        f = self.features(x)
        return self.face(f).softmax(1)[:, 1], self.box(f), self.landmarks(f)
