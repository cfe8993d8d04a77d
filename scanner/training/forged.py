"""Photographs in, a task of our own out: a fixed set of real crops and forgeries with exact masks, kept on disk.

One reason: who holds none of the field's data sets can still run the whole protocol.
A crop and its forgery share the view and the web life to the bit, so a forged pixel can be put back.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.detection.faces import FaceDetector
from scanner.training import lives, portraits, scenes
from scanner.training.data import View
from scanner.training.families import FAMILIES, cast, forged
from scanner.training.forge import visible
from scanner.training.masks import Mask
from scanner.training.portraits import CROP_PX, Pixels, Portrait, Split, from_files, split_of
from scanner.training.tasks import REAL, Item, SeenSet, TaskData, TaskName, UnseenSet

Pairs = Mapping[Split, int]
Pair = tuple[Pixels, Pixels, Mask]  # real crop, forged crop, mask
Make = Callable[[Portrait, Portrait, str, Generator], Pair | None]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Line(msgspec.Struct, frozen=True):
    """One row of the arrays beside it."""

    name: str
    family: str
    identity: str
    source: str


def forged_task(
    task: TaskName,
    photographs: Sequence[Portrait],
    *,
    seen: Sequence[str],
    unseen: Sequence[str],
    pairs: Pairs,
    folder: Path,
) -> TaskData:
    """Forge (or read again from `folder`) `pairs` crops and forgeries per family and split, by identity.

    Raises ValueError for a family that cannot be forged or a split without photographs.
    """
    known = scenes.FAMILIES if task == "inpainting" else FAMILIES
    if unknown := {*seen, *unseen} - set(known):
        msg = f"cannot forge {', '.join(sorted(unknown))} for {task}; there are {', '.join(known)}"
        raise ValueError(msg)
    split: dict[Split, list[Portrait]] = {name: [] for name in SPLITS}
    for photograph in photographs:
        split[scenes.split(photograph) if task == "inpainting" else split_of(photograph.identity)].append(photograph)
    if empty := [name for name, found in split.items() if not found]:
        msg = f"no photograph falls to {', '.join(empty)}: give more people (10 at least, 100 to learn from)"
        raise ValueError(msg)
    make = scene_pair if task == "inpainting" else face_pair
    train, val, test = (_kept(folder / name, split[name], seen, pairs[name], make) for name in SPLITS)
    hidden = _kept(folder / "unseen", split["test"], unseen, pairs["test"], make)
    return TaskData(
        task,
        SeenSet(tuple(seen), train, val, test),
        UnseenSet(tuple(unseen), hidden),
        origin=f"{len(photographs)} photographs, forged here (scanner/training/forge.py)",
        masks="exact, from the forging itself",
    )


def photographs_of(path: Path, task: TaskName, *, cache: Path) -> list[Portrait]:
    """Portraits from an .npz that `prepare` or `scenes` wrote, or from a folder of photographs; detection runs once.

    Raises ValueError when nothing is found.
    """
    if path.is_file():
        return portraits.load(path)
    if not cache.exists():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        found = _of_one_size(scenes.from_photos(files)) if task == "inpainting" else from_files(files, FaceDetector())
        if not found:
            msg = f"{path} holds no photograph{'' if task == 'inpainting' else ' with a face'}"
            raise ValueError(msg)
        cache.parent.mkdir(parents=True, exist_ok=True)
        portraits.save(found, beside := cache.with_name(f"new-{cache.name}"))
        beside.replace(cache)
    return portraits.load(cache)


def _of_one_size(found: Sequence[Portrait]) -> list[Portrait]:
    """The middle of each scene, as large as the smallest that is larger than what is forged in."""
    large = [scene for scene in found if min(scene.canvas.shape[:2]) >= scenes.SIDE_PX]
    height, width = (min((scene.canvas.shape[axis] for scene in large), default=0) for axis in (0, 1))
    cut = []
    for scene in large:
        y, x = (scene.canvas.shape[0] - height) // 2, (scene.canvas.shape[1] - width) // 2
        cut.append(replace(scene, canvas=np.ascontiguousarray(scene.canvas[y : y + height, x : x + width])))
    return cut


def face_pair(photograph: Portrait, donor: Portrait, family: str, rng: Generator) -> Pair | None:
    """A crop, its forgery and the mask in one view, after one life; None when nothing visible came of it."""
    forgery = forged(photograph, donor, family, rng)
    if not visible(photograph.canvas, forgery.picture, forgery.mask):
        return None
    life, view = lives.draw(rng), View.draw(rng)
    return view.of(life(photograph.canvas)), view.of(life(forgery.picture)), view.of_mask(forgery.mask)


def scene_pair(photograph: Portrait, donor: Portrait, family: str, rng: Generator) -> Pair | None:
    """The same of a tile of any photograph."""
    part = replace(photograph, canvas=scenes.square(photograph.canvas, rng), shape=scenes.NO_SHAPE)
    forgery = forged(part, donor, family, rng, scenes.FAMILIES)
    life, window = lives.draw(rng), scenes.Window.draw(rng)
    real, fake = life(part.canvas), life(forgery.picture)
    mask = window.of_mask(forgery.mask, fake.shape[0])
    if mask.mean() < 0.003 or not visible(part.canvas, forgery.picture, forgery.mask):
        return None
    return window.of(real), window.of(fake), mask


def _kept(
    stem: Path, photographs: Sequence[Portrait], families: Sequence[str], pairs: int, make: Make
) -> tuple[Item, ...]:
    """The items of one split, forged on the first call; crops and masks are opened from memory-mapped arrays."""
    lines_at = stem.with_suffix(".json")
    if not lines_at.exists():
        stem.parent.mkdir(parents=True, exist_ok=True)
        lines = _forge_all(stem, photographs, families, pairs, make)
        (beside := stem.with_suffix(".tmp")).write_bytes(msgspec.json.encode(lines))
        beside.replace(lines_at)  # last, so that it stands for the whole
    lines = msgspec.json.decode(lines_at.read_bytes(), type=list[Line])
    crops, masks = (np.load(f"{stem}_{kind}.npy", mmap_mode="r") for kind in ("crops", "masks"))
    return tuple(
        Item(
            line.name,
            line.family,
            line.identity,
            group=line.identity,
            crop=partial(_row, crops, row),
            mask=None if line.family == REAL else partial(_mask, masks, row),
            source=line.source,
        )
        for row, line in enumerate(lines)
    )


def _forge_all(
    stem: Path, photographs: Sequence[Portrait], families: Sequence[str], pairs: int, make: Make
) -> list[Line]:
    """Write crops (N, S, S, 3) and masks (N, S, S) uint8 beside `stem`; returns their lines, pair after pair."""
    cv2.setNumThreads(0)
    rng = np.random.default_rng(int(hashlib.sha256(stem.name.encode()).hexdigest()[:8], 16))
    count = 2 * pairs * len(families)
    shapes = {"crops": (count, CROP_PX, CROP_PX, 3), "masks": (count, CROP_PX, CROP_PX)}
    crops, masks = (
        np.lib.format.open_memmap(f"{stem}_{kind}.npy", "w+", np.uint8, shape) for kind, shape in shapes.items()
    )
    lines: list[Line] = []
    for family in families:
        for number, index in enumerate(rng.permutation(np.resize(np.arange(len(photographs)), pairs))):
            photograph, (real, fake, mask) = _one(photographs, int(index), family, rng, make)
            row, name = len(lines), f"{stem.name}/{family}/{number:05}"
            crops[row], crops[row + 1], masks[row + 1] = real, fake, np.rint(255 * np.clip(mask, 0, 1))
            lines.append(Line(f"{name}/real", REAL, photograph.identity, ""))
            lines.append(Line(f"{name}/fake", family, photograph.identity, f"{name}/real"))
    crops.flush()
    masks.flush()
    return lines


def _one(photographs: Sequence[Portrait], index: int, family: str, rng: Generator, make: Make) -> tuple[Portrait, Pair]:
    """A pair of this photograph or, when none can be made of it (nobody to take a face from), of another one."""
    for _ in range(20):
        photograph, donor = cast(photographs[index], photographs, family, rng)
        pair = make(photograph, donor, family, rng)
        if pair:
            return photograph, pair
        index = int(rng.integers(len(photographs)))
    msg = f"20 times in a row no visible {family} came out: give photographs of more people"
    raise ValueError(msg)


def _row(crops: NDArray[np.uint8], row: int) -> Pixels:
    return np.array(crops[row])


def _mask(masks: NDArray[np.uint8], row: int) -> Mask:
    return np.asarray(masks[row], np.float32) / np.float32(255)
