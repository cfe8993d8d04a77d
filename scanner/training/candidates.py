"""Fakes worth a mask in, a folder that a person or a rule fills with masks between, samples with masks out.

    FOLDER/candidates.json      [{"name": "0001", "picture": "pictures/0001.png", "attention": ..., "original": ...}]
    FOLDER/masks/0001.png       8-bit grey PNG, as large as the picture, 255 = forged
    FOLDER/masks/source.json    {"0001": "human" | "automatic" | "skipped"}

Human and automatic masks have one format, so that training cannot tell them apart and the report can.
A mask without a note was put there by hand and counts as human; a mask without a forged pixel is no mask.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import cv2
import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

if TYPE_CHECKING:
    from scanner.training.data import Sample
    from scanner.training.masks import Mask
    from scanner.training.portraits import Pixels

DIFFERENCE = 0.1
"""Grey levels, 0..1, by which a forged pixel differs from its original at least."""
CLOSING_PX = 7
SMALLEST = 0.005
"""Share of the picture below which a component is noise of the encoder, not a forgery."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", re.ASCII)


class CandidatesError(ValueError):
    """The folder is not one of candidates, or a picture or mask in it is not what it says; the message names it."""


class Source(StrEnum):
    """Where a mask comes from; `skipped` keeps a candidate out of the masked set, whether or not a mask is there."""

    HUMAN = "human"
    AUTOMATIC = "automatic"
    SKIPPED = "skipped"


class Candidate(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of candidates.json; files are PNG, relative to the folder."""

    name: str
    picture: str
    attention: str | None = None  # any size, 255 = where this map is strongest
    original: str | None = None  # the same picture before it was forged, the same size
    family: str = ""
    identity: str = ""


@dataclass(frozen=True)
class Masked:
    """One candidate with its mask, as training reads it."""

    name: str
    sample: "Sample"
    source: Source  # human or automatic


# ---------------------------------------------------------------- the folder


def write_candidates(
    folder: Path,
    samples: "Sequence[Sample]",
    attention_maps: Sequence[ArrayLike] | None = None,
    originals: "Sequence[Pixels | None] | None" = None,
) -> list[Candidate]:
    """Write the pictures of `samples`, their maps (h, w) and originals (H, W, 3), and candidates.json as the last.

    Names count from 0001 in the order given. Masks of the samples are not written: see `write_mask`.
    """
    found = []
    for number, sample in enumerate(samples):
        name = f"{number + 1:04}"
        attention = original = None
        _write_png(folder / (picture := f"pictures/{name}.png"), sample.crop)
        if attention_maps is not None:
            _write_png(folder / (attention := f"attention/{name}.png"), _as_grey(attention_maps[number]))
        if originals is not None and (before := originals[number]) is not None:
            _write_png(folder / (original := f"originals/{name}.png"), before)
        found.append(Candidate(name, picture, attention, original, sample.family, sample.identity))
    _write(folder / "candidates.json", msgspec.json.format(msgspec.json.encode(found)))
    return found


def read_candidates(folder: Path) -> list[Candidate]:
    """The candidates of a folder, in order; raises CandidatesError when one is missing, unsafe or named twice."""
    path = folder / "candidates.json"
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Candidate])
    except OSError as error:
        msg = f"{folder} is not a folder of candidates: candidates.json cannot be read ({error.strerror})"
        raise CandidatesError(msg) from error
    except msgspec.DecodeError as error:
        msg = f"{path} is not a list of candidates: {error}"
        raise CandidatesError(msg) from error
    seen = set[str]()
    for candidate in found:
        if not _NAME.fullmatch(candidate.name) or candidate.name in seen:
            msg = f"{path}: the name {candidate.name!r} is not plain, or there twice"
            raise CandidatesError(msg)
        seen.add(candidate.name)
        for file in (candidate.picture, candidate.attention, candidate.original):
            if file is not None:
                inside(folder, file)
    return found


def inside(folder: Path, file: str) -> Path:
    """The path of a file that candidates.json names; raises CandidatesError unless it is a PNG within the folder."""
    plain = all(_NAME.fullmatch(part) for part in file.split("/")) and PurePosixPath(file).suffix == ".png"
    path = folder / file
    if not (plain and path.is_file() and path.resolve().is_relative_to(folder.resolve())):
        msg = f"{folder}: {file!r} is not a PNG file in this folder"
        raise CandidatesError(msg)
    return path


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, from its head; raises CandidatesError when it is none."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.size
    except OSError as error:
        msg = f"{path} is not a PNG picture"
        raise CandidatesError(msg) from error


# ---------------------------------------------------------------- masks


def read_sources(folder: Path) -> dict[str, Source]:
    """The notes of masks/source.json; none when no mask was written yet."""
    path = folder / "masks" / "source.json"
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Source])
    except msgspec.DecodeError as error:
        msg = f"{path} does not tell where masks come from: {error}"
        raise CandidatesError(msg) from error


def note_source(folder: Path, name: str, source: Source | None) -> None:
    """Note where the mask of `name` comes from; None forgets it."""
    notes = read_sources(folder)
    if source is None:
        notes.pop(name, None)
    else:
        notes[name] = source
    _write(folder / "masks" / "source.json", msgspec.json.format(msgspec.json.encode(notes, order="sorted")))


def write_mask(folder: Path, name: str, mask: ArrayLike, source: Source = Source.AUTOMATIC) -> None:
    """Write the mask of a candidate, (H, W) in 0..1 or bool; one without a forged pixel removes what was there.

    The note comes first: a note without a mask means nothing, a mask without a note would count as human.
    """
    grey = np.rint(255 * np.clip(np.asarray(mask, np.float32), 0, 1)).astype(np.uint8)
    path = mask_path(folder, name)
    if grey.any():
        note_source(folder, name, source)
        _write_png(path, grey)
    else:
        path.unlink(missing_ok=True)
        note_source(folder, name, None)


def read_mask(folder: Path, candidate: Candidate) -> "Mask | None":
    """The mask (H, W) in 0..1 of a candidate, None where there is none; raises CandidatesError when it does not fit."""
    path = mask_path(folder, candidate.name)
    if not path.exists():
        return None
    size = size_of(folder / candidate.picture)
    if size_of(path) != size:
        msg = f"{path} is not as large as its picture, {size[0]} x {size[1]} px"
        raise CandidatesError(msg)
    mask = _read(path, "L").astype(np.float32) / np.float32(255)
    return mask if mask.any() else None


def read_masks(folder: Path) -> list[Masked]:
    """Every candidate that has a mask and was not skipped, in order: what stage 2 learns from."""
    from scanner.training.data import Sample  # noqa: PLC0415 - brings torch, which the annotator need not wait for

    sources, found = read_sources(folder), []
    for candidate in read_candidates(folder):
        source = sources.get(candidate.name, Source.HUMAN)
        mask = None if source is Source.SKIPPED else read_mask(folder, candidate)
        if mask is not None:
            crop = read_picture(folder / candidate.picture)
            found.append(Masked(candidate.name, Sample(crop, mask, candidate.family, candidate.identity), source))
    return found


def mask_path(folder: Path, name: str) -> Path:
    """Where the mask of `name` lies."""
    return folder / "masks" / f"{name}.png"


def difference_mask(fake: "Pixels", original: "Pixels") -> "Mask":
    """The forged part (H, W), 0 or 1, of a picture whose original is known.

    |fake - original| in grey > 0.1, closed over 7 x 7 px, holes filled, components of at most 0.5 % dropped.
    """
    before, after = (cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_RGB2GRAY) for p in (original, fake))
    differs = (cv2.absdiff(before, after) > 255 * DIFFERENCE).astype(np.uint8)
    closed = cv2.morphologyEx(differs, cv2.MORPH_CLOSE, np.ones((CLOSING_PX, CLOSING_PX), np.uint8))
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(closed), outlines, -1, 1, cv2.FILLED)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(filled)
    keep = stats[:, cv2.CC_STAT_AREA] > SMALLEST * closed.size
    keep[0] = False  # the background
    return np.asarray(keep[labels], np.float32)


# ---------------------------------------------------------------- files


def read_picture(path: Path) -> "Pixels":
    """A picture as (H, W, 3) RGB; raises CandidatesError when it cannot be read."""
    return _read(path, "RGB")


def _read(path: Path, mode: str) -> NDArray[np.uint8]:
    size_of(path)
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return np.asarray(picture.convert(mode), np.uint8)
    except (OSError, SyntaxError) as error:  # Pillow says SyntaxError of a broken PNG chunk
        msg = f"{path} is broken: {error}"
        raise CandidatesError(msg) from error


def _as_grey(attention: ArrayLike) -> NDArray[np.uint8]:
    """A map (h, w) of any scale as 0..255; what speaks against a forgery is 0."""
    values = np.maximum(np.asarray(attention, np.float32), 0)
    return np.rint(255 * values / max(float(values.max()), 1e-9)).astype(np.uint8)


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    written, data = cv2.imencode(".png", pixels[:, :, ::-1] if pixels.ndim == 3 else pixels)
    assert written  # noqa: S101 - uint8 arrays always are
    _write(path, data.tobytes())


def _write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a kill or a power cut leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
