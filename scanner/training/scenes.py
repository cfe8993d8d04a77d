"""Photographs of anything in, real and forged tiles with exact masks out: the third task, inpainting.

    python -m scanner.training.scenes ../shared/data/natural --out runs/scenes.npz

A scene is kept as a `Portrait` without landmarks, so that files, streams and splits are those of faces; only the
pair is made differently: a tile is a window of the picture at its own pixels, as `scanner.detection.tiles` cuts it.

    telea, navier_stokes   diffusion into a hole
    patch_copy             pixels of elsewhere in the picture, moved as a whole
    patch_fill             `patches.fill`: each patch finds its likeness
    scene_splice           a piece of another photograph
"""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from scanner.detection import tiles
from scanner.training import degrade, masks, patches
from scanner.training.data import Sample
from scanner.training.families import forged
from scanner.training.forge import Family
from scanner.training.lives import Life
from scanner.training.masks import Mask, T
from scanner.training.portraits import CROP_PX, Pixels, Portrait, Split, identity_of, read, save, split_of

SIDE_PX = 320  # a square of the scene is forged; room for a tile at any place in it
NO_SHAPE = np.zeros((0, 2), np.float32)


def hole(rng: Generator, size: int) -> Mask:
    """A hole as people make them: a free form, a rectangle or a few strokes; 1 % to 25 % of the square."""
    kind = rng.choice(["blob", "box", "strokes"], p=[0.5, 0.25, 0.25])
    if kind == "blob":
        return masks.blob(rng, size)
    mask = np.zeros((size, size), np.float32)
    if kind == "box":
        half = size * rng.uniform(0.06, 0.22, 2)
        middle = rng.uniform(half + 2, size - half - 2)
        (x0, y0), (x1, y1) = (np.round(v).astype(int).tolist() for v in (middle - half, middle + half))
        mask[y0:y1, x0:x1] = 1
        return mask
    at = rng.uniform(0.2, 0.8, 2) * size
    for _ in range(int(rng.integers(2, 6))):
        to = np.clip(at + rng.normal(0, 0.15 * size, 2), 0.05 * size, 0.95 * size)
        ends = [tuple(p.round().astype(int).tolist()) for p in (at, to)]
        cv2.line(mask, ends[0], ends[1], 1.0, int(size * rng.uniform(0.02, 0.06)))
        at = to
    return mask


def telea(scene: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Fast marching (Telea 2004)."""
    return _diffused(scene.canvas, cv2.INPAINT_TELEA, rng)


def navier_stokes(scene: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Isophotes carried on (Bertalmio et al. 2001)."""
    return _diffused(scene.canvas, cv2.INPAINT_NS, rng)


def _diffused(picture: Pixels, method: int, rng: Generator) -> tuple[Pixels, Mask]:
    mask = hole(rng, picture.shape[0])
    filled = cv2.inpaint(picture, (mask * 255).astype(np.uint8), float(rng.uniform(2, 6)), method)
    if rng.random() < 0.5:  # grain, so that smoothness alone does not give it away
        filled = degrade.noise(np.asarray(filled, np.uint8), rng.uniform(0.5, 4), rng)
    return np.where(mask[..., None] > 0, filled, picture).astype(np.uint8), mask


def patch_copy(scene: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Copy-move: the hole shows another part of the picture, maybe mirrored, with a hard or soft edge."""
    size = scene.canvas.shape[0]
    shift = rng.choice([-1, 1], 2) * rng.uniform(0.12, 0.4, 2) * size
    field = np.zeros((size, size, 2), np.float32) + shift.round()  # whole pixels: nothing is resampled
    other = scene.canvas[:, ::-1] if rng.random() < 0.25 else scene.canvas
    copied = masks.moved(np.ascontiguousarray(other), field.astype(np.float32))
    return _set_in(copied, scene.canvas, hole(rng, size), rng)


def patch_fill(scene: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Content-aware filling."""
    mask = hole(rng, scene.canvas.shape[0])
    return patches.fill(scene.canvas, mask, rng), mask


def scene_splice(scene: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """A piece of another photograph at its own scale or resized, with a hard or soft edge."""
    size = scene.canvas.shape[0]
    piece = square(donor.canvas, rng)
    if rng.random() < 0.5:
        factor = float(rng.uniform(0.6, 1.6))
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), float(rng.uniform(-20, 20)), factor)
        border = cv2.BORDER_REFLECT_101
        turned = cv2.warpAffine(piece, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=border)
        piece = np.asarray(turned, np.uint8)
    return _set_in(piece, scene.canvas, hole(rng, size), rng)


def _set_in(inside: Pixels, outside: Pixels, mask: Mask, rng: Generator) -> tuple[Pixels, Mask]:
    if rng.random() < 0.5:
        mask = masks.feather(mask, rng, widest=0.02)
    return np.asarray(cv2.blendLinear(inside, outside, mask, 1 - mask), np.uint8), mask


FAMILIES: dict[str, Family] = {
    "telea": telea,
    "navier_stokes": navier_stokes,
    "patch_copy": patch_copy,
    "patch_fill": patch_fill,
    "scene_splice": scene_splice,
}


@dataclass(frozen=True)
class Window:
    """Where a tile lies in a square, as shares of the room there is, and whether it is mirrored or turned."""

    x: float
    y: float
    flip: bool
    turns: int  # by 90 degrees: no pixel is resampled

    @classmethod
    def draw(cls, rng: Generator) -> "Window":
        """A random window."""
        return cls(float(rng.random()), float(rng.random()), bool(rng.random() < 0.5), int(rng.integers(4)))

    def of(self, picture: Pixels) -> Pixels:
        """The tile of a square that may have been resized on its way; a small one is mirrored, never enlarged."""
        return self._turned(self._cut(tiles.padded(picture)))

    def of_mask(self, mask: Mask, side: int) -> Mask:
        """The tile of the mask of a square that has become `side` px wide."""
        resized = np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA), np.float32)
        missing = max(0, CROP_PX - side)
        return self._turned(self._cut(np.pad(resized, (0, missing), mode="symmetric")))

    def _cut(self, whole: np.ndarray[tuple[int, ...], np.dtype[T]]) -> np.ndarray[tuple[int, ...], np.dtype[T]]:
        x, y = (round(share * (whole.shape[0] - CROP_PX)) for share in (self.x, self.y))
        return whole[y : y + CROP_PX, x : x + CROP_PX]

    def _turned(self, tile: np.ndarray[tuple[int, ...], np.dtype[T]]) -> np.ndarray[tuple[int, ...], np.dtype[T]]:
        turned = np.rot90(tile, self.turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.flip else turned)


def square(photo: Pixels, rng: Generator) -> Pixels:
    """A random square of SIDE_PX of a photograph; what is missing is mirrored."""
    missing = [max(0, SIDE_PX - side) for side in photo.shape[:2]]
    whole = np.pad(photo, [(0, missing[0]), (0, missing[1]), (0, 0)], mode="symmetric") if any(missing) else photo
    y, x = (int(rng.integers(side - SIDE_PX + 1)) for side in whole.shape[:2])
    return np.ascontiguousarray(whole[y : y + SIDE_PX, x : x + SIDE_PX])


def part_of(scene: Portrait, rng: Generator) -> Portrait:
    """A random square of a scene, as a scene."""
    return Portrait(square(scene.canvas, rng), NO_SHAPE, scene.identity, scene.source, scene.scale)


def pair(
    scene: Portrait, donor: Portrait, family: str, rng: Generator, *, strength: float = 1.0, life: Life = degrade.draw
) -> tuple[Sample, Sample]:
    """A real and a forged tile of one photograph, the same window of it, with the same web life: as `data.pair`.

    Draws the window again (8 times) while it misses what was forged.
    """
    part = part_of(scene, rng)
    forgery = forged(part, donor, family, rng, FAMILIES)
    lived = life(rng, strength=strength)
    other_life = lived if rng.random() < 0.75 else life(rng, strength=strength)
    real, fake = lived(part.canvas), other_life(forgery.picture)
    for _ in range(8):
        window = Window.draw(rng)
        mask = window.of_mask(forgery.mask, fake.shape[0])
        if mask.mean() > 0.003:
            break
    return (
        Sample(window.of(real), np.zeros_like(mask), "real", scene.identity),
        Sample(window.of(fake), mask, family, scene.identity),
    )


def from_photos(paths: Iterable[Path]) -> list[Portrait]:
    """Scenes of photographs of one size, upright ones laid on their side; the identity is the photograph."""
    scenes = []
    for path in paths:
        photo = read(path)
        lying = np.ascontiguousarray(np.rot90(photo)) if photo.shape[0] > photo.shape[1] else photo
        scenes.append(Portrait(lying, NO_SHAPE, identity_of(path), path.parent.name, 1.0))
    return scenes


def split(scene: Portrait) -> Split:
    """Photographs of a folder called `val` are for validation and test by halves, all others go by `split_of`."""
    if scene.source != "val":
        return split_of(scene.identity)
    return "val" if sum(scene.identity.encode()) % 2 else "test"


def main() -> None:
    """Write the scenes of a folder of photographs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of photographs of one size, searched with its folders")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save(from_photos(sorted(given.photos.rglob("*.jpg"))), given.out)


if __name__ == "__main__":
    main()
