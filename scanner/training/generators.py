"""Portraits or photographs in, trained forgers out: small networks that make what others' detectors call deepfakes.

    python -m scanner.training.generators swap --portraits runs/portraits.npz --people signer_a,signer_b --out FILE
    python -m scanner.training.generators fill --scenes runs/scenes.npz --out FILE

Swap: the classic deepfake (2017): one encoder that knows any face, one decoder per person; a face of A through the
decoder of B is B with A's expression. Fill: a generator that paints what lies in a hole and a discriminator that tells
painted from real (after Pathak et al., CVPR 2016), both seen at 128 px. Each learns in minutes on one core.
`forgers.py` turns what is learnt here into families. Train on the training split only: `--split` says which.
"""

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import cv2
import msgspec
import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.random import Generator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from scanner.training import masks, scenes
from scanner.training.masks import Mask
from scanner.training.portraits import CANVAS_PX, MARGIN_PX, Pixels, Portrait, load, split_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SwapConfig:
    """One encoder, as many decoders as people."""

    people: tuple[str, ...]
    size: int = 64  # px, the face that is coded: 64 in the first deepfakes, 128 later
    width: int = 32  # channels at the full size; the code has 8 times as many
    code: int = 256
    steps: int = 3000
    batch: int = 16
    lr: float = 1e-3
    seed: int = 0


@dataclass(frozen=True)
class FillConfig:
    """A generator that sees a picture with a hole, and its critic."""

    size: int = 128
    width: int = 24
    steps: int = 3000
    batch: int = 8
    lr: float = 5e-4
    adversarial: float = 0.02
    seed: int = 0


def down(c_in: int, c_out: int) -> nn.Sequential:
    """Half of the size."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 5, stride=2, padding=2), nn.LeakyReLU(0.1))


def up(c_in: int, c_out: int) -> nn.Sequential:
    """Twice the size by a sub-pixel convolution: its regular grid is the trace that deepfakes are known by."""
    return nn.Sequential(nn.Conv2d(c_in, 4 * c_out, 3, padding=1), nn.LeakyReLU(0.1), nn.PixelShuffle(2))


class Swapper(nn.Module):
    """Faces (B, 3, size, size) in 0..1 to faces of one person."""

    def __init__(self, config: SwapConfig) -> None:
        super().__init__()
        self.config = config
        w, side = config.width, config.size // 8
        self.encoder = nn.Sequential(
            *(down(3, w), down(w, 2 * w), down(2 * w, 4 * w), nn.Flatten()),
            nn.Linear(4 * w * side * side, config.code),
            nn.Linear(config.code, 4 * w * side * side // 4),
            nn.Unflatten(1, (4 * w, side // 2, side // 2)),
            up(4 * w, 4 * w),
        )
        self.decoders = nn.ModuleDict({person: self._decoder(w) for person in config.people})

    @staticmethod
    def _decoder(w: int) -> nn.Sequential:
        return nn.Sequential(up(4 * w, 2 * w), up(2 * w, w), up(w, w), nn.Conv2d(w, 3, 5, padding=2), nn.Sigmoid())

    def forward(self, x: Tensor, person: str) -> Tensor:
        """The same pose and expression with another's face."""
        return cast("Tensor", self.decoders[person](self.encoder(x)))


class Filler(nn.Module):
    """A picture with a hole in, (B, 3, s, s) in 0..1 and (B, 1, s, s), painted; convolutions of growing reach."""

    def __init__(self, config: FillConfig) -> None:
        super().__init__()
        self.config = config
        w = config.width
        wide = [self._reaching(4 * w, rate) for rate in (1, 2, 4, 8)]
        self.layers = nn.Sequential(
            *(down(4, w), down(w, 2 * w), nn.Conv2d(2 * w, 4 * w, 3, padding=1), *wide),
            *(up(4 * w, 2 * w), up(2 * w, w), nn.Conv2d(w, 3, 3, padding=1), nn.Sigmoid()),
        )

    @staticmethod
    def _reaching(channels: int, rate: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate), nn.LeakyReLU(0.1))

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        """The picture, painted where the hole is."""
        painted = cast("Tensor", self.layers(torch.cat([x * (1 - hole), hole], 1)))
        return x * (1 - hole) + painted * hole


class Critic(nn.Module):
    """Patches of a picture to logits: real or painted."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.layers = nn.Sequential(down(3, w), down(w, 2 * w), down(2 * w, 4 * w), nn.Conv2d(4 * w, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, s, s) -> (B, 1, s / 8, s / 8)."""
        return cast("Tensor", self.layers(x))


FACE = slice(MARGIN_PX + 28, CANVAS_PX - MARGIN_PX - 16)
"""Where the face is in a canvas, rows and columns: from the forehead to the chin."""


def face_of(canvas: Pixels, size: int) -> Pixels:
    """The part of a canvas that a swapper codes."""
    return np.asarray(cv2.resize(canvas[FACE, FACE], (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def tensor(pictures: Sequence[Pixels]) -> Tensor:
    """(B, 3, H, W) in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def pixels(x: Tensor) -> Pixels:
    """The first of a batch as (H, W, 3) uint8."""
    return np.asarray((x[0].detach().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy(), np.uint8)


def distorted(canvas: Pixels, rng: Generator, size: int) -> tuple[Pixels, Pixels]:
    """A face moved, mirrored and lit a little differently, once more bent (what goes in) and once not (what to give).

    The bending is what makes the encoder forget whose face it is.
    """
    side = canvas.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), float(rng.uniform(-8, 8)), float(rng.uniform(0.95, 1.05)))
    matrix[:, 2] += rng.uniform(-0.03, 0.03, 2) * side
    moved = np.asarray(cv2.warpAffine(canvas, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101), np.uint8)
    if rng.random() < 0.5:
        moved = np.ascontiguousarray(moved[:, ::-1])
    light = np.clip(np.arange(256) * rng.uniform(0.85, 1.15) + rng.uniform(-12, 12), 0, 255).astype(np.uint8)
    moved = np.asarray(cv2.LUT(moved, light), np.uint8)
    bent = masks.moved(moved, masks.displacement(rng, side, 0.012, grain=5))
    return face_of(bent, size), face_of(moved, size)


def train_swapper(portraits: Sequence[Portrait], config: SwapConfig) -> Swapper:
    """Learn to draw each of the people; raises ValueError when one has no picture.

    Both people of a step share the encoder's update. On a GPU when there is one.
    """
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    of = {person: [p.canvas for p in portraits if p.identity == person] for person in config.people}
    if missing := [person for person, found in of.items() if not found]:
        msg = f"no portrait of {', '.join(missing)}"
        raise ValueError(msg)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Swapper(config).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, betas=(0.5, 0.999))

    def step() -> float:
        total = torch.zeros((), device=device)
        for person, canvases in of.items():
            drawn = [distorted(canvases[i], rng, config.size) for i in rng.integers(len(canvases), size=config.batch)]
            bent, wanted = (tensor(list(side)).to(device) for side in zip(*drawn, strict=True))
            total = total + nnf.l1_loss(model(bent, person), wanted)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()
        return float(total.detach()) / len(of)

    _loop(step, config.steps)
    return model.cpu().eval()


def train_filler(photographs: Sequence[Portrait], config: FillConfig) -> Filler:
    """Learn to paint holes of these photographs, against a critic. On a GPU when there is one."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, critic = Filler(config).to(device), Critic(config.width).to(device)
    paint, judge = (torch.optim.Adam(m.parameters(), lr=config.lr, betas=(0.5, 0.999)) for m in (model, critic))

    def step() -> float:
        chosen = [photographs[i].canvas for i in rng.integers(len(photographs), size=config.batch)]
        x, hole = (t.to(device) for t in _with_holes(chosen, rng, config.size))
        painted = model(x, hole)
        real = critic(x)
        near = nnf.adaptive_max_pool2d(hole, real.shape[-1])  # only patches that touch the hole are judged
        verdicts = nnf.softplus(-real) + nnf.softplus(critic(painted.detach())) * near
        judge.zero_grad(set_to_none=True)
        verdicts.mean().backward()
        judge.step()
        close = ((painted - x).abs() * hole).sum() / hole.sum().clamp_min(1) / 3
        loss = close + config.adversarial * (nnf.softplus(-critic(painted)) * near).sum() / near.sum().clamp_min(1)
        paint.zero_grad(set_to_none=True)
        loss.backward()
        paint.step()
        return float(close.detach())

    _loop(step, config.steps)
    return model.cpu().eval()


def _with_holes(pictures: Sequence[Pixels], rng: Generator, size: int) -> tuple[Tensor, Tensor]:
    """Random squares of pictures at a random scale, and holes."""
    squares, holes = list[Pixels](), list[Mask]()
    for picture in pictures:
        part = scenes.square(picture, rng)
        side = int(rng.integers(size, part.shape[0] + 1))
        y, x = rng.integers(part.shape[0] - side + 1, size=2)
        window = part[y : y + side, x : x + side]
        squares.append(np.asarray(cv2.resize(window, (size, size), interpolation=cv2.INTER_AREA), np.uint8))
        holes.append((scenes.hole(rng, size) > 0.5).astype(np.float32))
    return tensor(squares), torch.from_numpy(np.stack(holes))[:, None]


def _loop(step: Callable[[], float], steps: int) -> None:
    begun, recent = time.monotonic(), list[float]()
    for number in range(steps):
        recent.append(step())
        if (number + 1) % max(1, steps // 20) == 0:
            log.info("step %d, loss %.4f, %.0f s", number + 1, np.mean(recent), time.monotonic() - begun)
            recent.clear()


def keep(model: Swapper | Filler, path: Path) -> None:
    """Write a model with its config, as safetensors; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "swap" if isinstance(model, Swapper) else "fill"
    config = msgspec.json.encode(asdict(model.config)).decode()
    save_file(model.state_dict(), beside := path.with_suffix(".tmp"), {"kind": kind, "config": config})
    beside.replace(path)


def kept(path: Path) -> Swapper | Filler:
    """The model that `keep` wrote; raises ValueError for any other file."""
    with safe_open(path, "pt") as file:
        notes = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    model: Swapper | Filler
    if notes.get("kind") == "swap":
        model = Swapper(msgspec.json.decode(notes["config"], type=SwapConfig))
    elif notes.get("kind") == "fill":
        model = Filler(msgspec.json.decode(notes["config"], type=FillConfig))
    else:
        msg = f"{path} is no generator of ours"
        raise ValueError(msg)
    model.load_state_dict(state)
    return model.eval()


def main() -> None:
    """Train one generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    swap, fill = kinds.add_parser("swap"), kinds.add_parser("fill")
    swap.add_argument("--portraits", type=Path, required=True)
    swap.add_argument("--people", required=True, help="identities, comma-separated: two or more")
    fill.add_argument("--scenes", type=Path, required=True)
    fill.add_argument("--split", default="train", help="photographs of which split")
    for kind in (swap, fill):
        kind.add_argument("--out", type=Path, required=True)
        kind.add_argument("--steps", type=int, default=3000)
        kind.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if given.kind == "swap":
        people = tuple(given.people.split(","))
        if len({split_of(person) for person in people}) > 1:
            parser.error("these people are of different splits: a forgery shows both, so they must be of one")
        config = SwapConfig(people, steps=given.steps, seed=given.seed)
        keep(train_swapper(load(given.portraits), config), given.out)
    else:
        photographs = [scene for scene in load(given.scenes) if scenes.split(scene) == given.split]
        keep(train_filler(photographs, FillConfig(steps=given.steps, seed=given.seed)), given.out)


if __name__ == "__main__":
    main()
