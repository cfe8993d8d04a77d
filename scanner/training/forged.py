"""Photographs in, a task of our own out: a fixed set of real crops and forgeries with exact masks, kept on disk.

One reason: who holds none of the field's data sets can still run the whole protocol.
A crop and its forgery share the view and the web life to the bit, so a forged pixel can be put back.
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner.faces import FaceDetector
from scanner.training import degrade, portraits
from scanner.training.data import View
from scanner.training.forge import FAMILIES, forge
from scanner.training.masks import Mask
from scanner.training.portraits import CANVAS_PX, CROP_PX, MARGIN_PX, Pixels, Portrait, Split, mean_shape, split_of
from scanner.training.tasks import REAL, Item, SeenSet, TaskData, TaskName, UnseenSet

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
    pairs: dict[Split, int],
    folder: Path,
) -> TaskData:
    """Forge (or read again from `folder`) `pairs` crops and forgeries per family and split, by identity.

    Raises ValueError for a family that cannot be forged or a split without photographs.
    """
    if unknown := {*seen, *unseen} - set(FAMILIES):
        msg = f"cannot forge {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}"
        raise ValueError(msg)
    split: dict[Split, list[Portrait]] = {name: [] for name in SPLITS}
    for photograph in photographs:
        split[split_of(photograph.identity)].append(photograph)
    if empty := [name for name, found in split.items() if not found]:
        msg = f"no photograph falls to {', '.join(empty)}: give more people (10 at least, 100 to learn from)"
        raise ValueError(msg)
    train, val, test = (_kept(folder / name, split[name], seen, pairs[name]) for name in SPLITS)
    hidden = _kept(folder / "unseen", split["test"], unseen, pairs["test"])
    return TaskData(
        task,
        SeenSet(tuple(seen), train, val, test),
        UnseenSet(tuple(unseen), hidden),
        origin=f"{len(photographs)} photographs, forged here (scanner/training/forge.py)",
        masks="exact, from the forging itself",
    )


def photographs_of(path: Path, task: TaskName, *, cache: Path) -> list[Portrait]:
    """Portraits from an .npz that `portraits.save` wrote, or from a folder; for inpainting, tiles of any photographs.

    Detection runs once: the result is kept at `cache`.  Raises ValueError when nothing is found.
    """
    if path.is_file():
        return portraits.load(path)
    if not cache.exists():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        found = tiles(files) if task == "inpainting" else portraits.from_files(files, FaceDetector())
        if not found:
            msg = f"{path} holds no {'photograph' if task == 'inpainting' else 'photograph with a face'}"
            raise ValueError(msg)
        cache.parent.mkdir(parents=True, exist_ok=True)
        portraits.save(found, beside := cache.with_name(f"new-{cache.name}"))
        beside.replace(cache)
    return portraits.load(cache)


def tiles(files: Sequence[Path]) -> list[Portrait]:
    """Two overlapping tiles of each photograph: what inpainting is looked for in, faces or not.

    The mean face stands in for landmarks: it only gives holes their outlines.
    """
    found = []
    shape = (mean_shape() * CROP_PX + MARGIN_PX).astype(np.float32)
    for file in files:
        picture = portraits.read(file)
        grow = max(1.0, CANVAS_PX / min(picture.shape[:2]))
        if grow > 1:
            picture = np.asarray(cv2.resize(picture, None, fx=grow, fy=grow, interpolation=cv2.INTER_CUBIC), np.uint8)
        rest = np.array(picture.shape[:2]) - CANVAS_PX
        for y, x in {(0, 0), tuple(map(int, rest))}:
            canvas = np.ascontiguousarray(picture[y : y + CANVAS_PX, x : x + CANVAS_PX])
            found.append(Portrait(canvas, shape, portraits.identity_of(file), file.parent.name, grow))
    return found


def _kept(stem: Path, photographs: Sequence[Portrait], families: Sequence[str], pairs: int) -> tuple[Item, ...]:
    """The items of one split, forged on the first call; crops and masks are opened from memory-mapped arrays."""
    lines_at = stem.with_suffix(".json")
    if not lines_at.exists():
        stem.parent.mkdir(parents=True, exist_ok=True)
        lines = _forge_all(stem, photographs, families, pairs)
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


def _forge_all(stem: Path, photographs: Sequence[Portrait], families: Sequence[str], pairs: int) -> list[Line]:
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
            photograph, donor = photographs[index], photographs[int(rng.integers(len(photographs)))]
            forgery = forge(photograph, donor, family, rng)
            life, view = degrade.draw(rng), View.draw(rng)
            row, real = len(lines), f"{stem.name}/{family}/{number:05}/real"
            crops[row], crops[row + 1] = view.of(life(photograph.canvas)), view.of(life(forgery.picture))
            masks[row + 1] = np.rint(255 * np.clip(view.of_mask(forgery.mask), 0, 1)).astype(np.uint8)
            lines.append(Line(real, REAL, photograph.identity, ""))
            lines.append(Line(real.removesuffix("real") + "fake", family, photograph.identity, real))
    crops.flush()
    masks.flush()
    return lines


def _row(crops: NDArray[np.uint8], row: int) -> Pixels:
    return np.array(crops[row])


def _mask(masks: NDArray[np.uint8], row: int) -> Mask:
    return np.asarray(masks[row], np.float32) / np.float32(255)
