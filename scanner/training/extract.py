"""A data set's clips in, a task's items out: the same frames of forged, original and mask, cut at the same place.

    CACHE/<clip>/<frame>.png        crop or tile, (256, 256, 3)
    CACHE/<clip>/<frame>.mask.png   8-bit grey, 255 = forged
    CACHE/done/<key>.json           what one original and its forgeries gave; written last, so that a kill loses one

One reason: frames are decoded and faces found once, before training, and never while it waits.
"""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner.detection.faces import FaceDetector, align, sample
from scanner.detection.tiles import padded
from scanner.training import clips as videos
from scanner.training.candidates import difference_mask
from scanner.training.clips import VIDEO_SUFFIXES
from scanner.training.datasets import SPLITS, Clip, DatasetError, apart, layout_of
from scanner.training.masks import Mask
from scanner.training.portraits import CROP_PX, Pixels, Split, read
from scanner.training.tasks import REAL, Item, SeenSet, TaskData, TaskName, UnseenSet

log = logging.getLogger(__name__)

FRAMES = 20  # per video: 20 of 720 training videos are the paper's order of magnitude
Place = NDArray[np.float64]  # (2, 3) crop coordinates 0..1 -> frame px


class Line(msgspec.Struct, frozen=True):
    """One item on disk."""

    name: str
    family: str
    identity: str
    group: str
    split: Split
    source: str = ""
    masked: bool = False


def task_data(
    task: TaskName, root: Path, seen: Sequence[str], unseen: Sequence[str], *, cache: Path, frames: int = FRAMES
) -> TaskData:
    """The task that a data set's folder holds, extracted into `cache` (or what is missing there).

    Raises DatasetError when the folder is of another task or lacks a method, a split, or pictures of either kind.
    """
    layout = layout_of(root)
    if task not in layout.tasks:
        msg = f"{root} is {layout.title}: that is for {' or '.join(layout.tasks)}, not {task}"
        raise DatasetError(msg)
    everything = layout.clips(root)
    methods = {clip.family for clip in everything} - {REAL}
    if missing := {*seen, *unseen} - methods:
        msg = f"{root} has no {', '.join(sorted(missing))}; there are {', '.join(sorted(methods))}"
        raise DatasetError(msg)
    wanted = [
        clip
        for clip in apart(everything)
        if clip.family in {REAL, *seen} or (clip.family in unseen and clip.split == "test")
    ]
    lines = extract(wanted, cache, frames=frames, whole=task == "inpainting")
    train, val, test = (_items(lines, cache, split, seen) for split in SPLITS)
    for name, items in zip(SPLITS, (train, val, test), strict=True):
        if {item.is_real for item in items} != {True, False}:
            msg = f"{layout.title}: {name} lacks real or forged pictures, once nobody is in two splits"
            raise DatasetError(msg)
    return TaskData(
        task,
        SeenSet(tuple(seen), train, val, test),
        UnseenSet(tuple(unseen), _items(lines, cache, "test", unseen)),
        origin=f"{layout.title}, {len(wanted)} clips, up to {frames} frames each",
        masks="the data set's own where it has them, else the difference to the original",
    )


def _items(lines: Iterable[Line], cache: Path, split: Split, families: Sequence[str]) -> tuple[Item, ...]:
    return tuple(
        Item(
            line.name,
            line.family,
            line.identity,
            line.group,
            crop=partial(read, cache / f"{line.name}.png"),
            mask=partial(_read_mask, cache / f"{line.name}.mask.png") if line.masked else None,
            source=line.source,
        )
        for line in lines
        if line.split == split and line.family in {REAL, *families}
    )


def _read_mask(path: Path) -> Mask:
    return (read(path)[..., 0] / np.float32(255)).astype(np.float32)


def extract(clips: Sequence[Clip], cache: Path, *, frames: int, whole: bool) -> list[Line]:
    """Write the crops (faces, or tiles of the `whole` picture) of all clips that are not there yet; lines of all."""
    detector = None if whole else FaceDetector()
    reals = {clip.name: clip for clip in clips if clip.family == REAL}
    jobs: dict[str, list[Clip]] = {name: [] for name in reals}
    for clip in clips:
        if clip.family != REAL:
            jobs.setdefault(clip.original if clip.original in reals else clip.name, []).append(clip)
    found: list[Line] = []
    for number, (name, forged) in enumerate(sorted(jobs.items())):
        key = hashlib.sha256(repr((name, [c.name for c in forged], frames, whole)).encode()).hexdigest()[:24]
        done = cache / "done" / f"{key}.json"
        if not done.exists():
            lines = _extracted(reals.get(name), forged, cache, frames, detector)
            done.parent.mkdir(parents=True, exist_ok=True)
            (beside := done.with_suffix(".tmp")).write_bytes(msgspec.json.encode(lines))
            beside.replace(done)
            log.info("%d of %d: %s, %d crops", number + 1, len(jobs), name, len(lines))
        found += msgspec.json.decode(done.read_bytes(), type=list[Line])
    return found


def _extracted(
    real: Clip | None, forged: Sequence[Clip], cache: Path, frames: int, detector: FaceDetector | None
) -> list[Line]:
    """One original with its forgeries, or one clip alone."""
    base = real or forged[0]
    pictures = _opened(base.path, frames)
    places = {number: _face(picture, detector) for number, picture in pictures.items()} if detector else {}
    lines: list[Line] = []
    if real and (detector or not forged):
        for number, picture in pictures.items():
            place = places[number] if detector else _middle(padded(picture))
            if place is not None:
                lines.append(_written(cache, _line(real, number), _cut(picture, place)))
    for clip in forged:
        masks = _opened(clip.mask, frames, pictures) if clip.mask else {}
        for number, picture in (_opened(clip.path, frames, pictures) if real else pictures).items():
            original, mask = (pictures[number] if real else None), _bright(masks.get(number), clip.mask, picture)
            if original is not None and original.shape != picture.shape:
                continue  # of another size: not aligned pixel for pixel
            place = places[number] if detector else _around(padded(picture), mask, original)
            if place is not None:
                lines += _pair(cache, clip, number, place, (picture, original, mask), real)
    return lines


def _pair(
    cache: Path,
    clip: Clip,
    number: int,
    place: Place,
    pictures: tuple[Pixels, Pixels | None, Mask | None],
    real: Clip | None,
) -> list[Line]:
    """One forged crop with its mask; a tile brings the same tile of its original along."""
    forged, original, mask = pictures
    crop, lines = _cut(forged, place), list[Line]()
    before = _cut(original, place) if original is not None else None
    area = _cut_mask(mask, place) if mask is not None else difference_mask(crop, before) if before is not None else None
    source = f"{real.name}/{number:05}" if real else ""
    if real and before is not None and not (cache / f"{source}.png").exists():
        source = f"{clip.name}/{number:05}.original"
        lines.append(_written(cache, _line(real, number, name=source), before))
    lines.append(_written(cache, _line(clip, number, source=source), crop, area))
    return lines


def _line(clip: Clip, number: int, *, name: str = "", source: str = "") -> Line:
    name = name or f"{clip.name}/{number:05}"
    return Line(name, clip.family, clip.identity, clip.name, clip.split, source)


def _written(cache: Path, line: Line, crop: Pixels, mask: Mask | None = None) -> Line:
    path = cache / f"{line.name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), crop[:, :, ::-1])
    if mask is None or not mask.any():
        return line
    cv2.imwrite(str(cache / f"{line.name}.mask.png"), np.rint(255 * mask).astype(np.uint8))
    return msgspec.structs.replace(line, masked=True)


def _opened(path: Path, frames: int, like: Iterable[int] | None = None) -> dict[int, Pixels]:
    """A picture as frame 0, or frames of a video: those of `like`, else evenly spread ones."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return {0: read(path)}
    return videos.frames(path, list(like) if like is not None else videos.evenly(videos.count(path), frames))


def _face(picture: Pixels, detector: FaceDetector | None) -> Place | None:
    """Where the largest face is, if there is one."""
    faces = detector.detect([picture])[0] if detector else []
    return align(picture, faces[0])[1] if faces else None


def _middle(picture: Pixels, at: tuple[float, float] | None = None) -> Place:
    """The tile around a place (x, y), or the picture's middle, wholly inside and on whole pixels."""
    ends = np.array(picture.shape[1::-1])
    corner = np.clip(np.round((np.array(at) if at else ends / 2) - CROP_PX / 2), 0, np.maximum(ends - CROP_PX, 0))
    return np.hstack([np.eye(2) * CROP_PX, corner[:, None]])


def _around(picture: Pixels, mask: Mask | None, original: Pixels | None) -> Place:
    """The tile around what was forged."""
    if mask is None and original is not None:
        mask = difference_mask(picture[: original.shape[0], : original.shape[1]], original)
    if mask is None or not mask.any():
        return _middle(picture)
    ys, xs = np.nonzero(mask > 0.5)
    return _middle(picture, (float(xs.mean()), float(ys.mean())))


def _bright(drawn: Pixels | None, path: Path | None, like: Pixels) -> Mask | None:
    """The forged part of a mask's frame: half bright in a picture; in a video already a tenth, which codecs blur."""
    if drawn is None or path is None:
        return None
    video = path.suffix.lower() in VIDEO_SUFFIXES
    hard = (drawn.max(2) > (25 if video else 127)).astype(np.uint8)
    if hard.shape != like.shape[:2]:
        hard = np.asarray(cv2.resize(hard, like.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(hard, np.float32)


def _cut(picture: Pixels, place: Place) -> Pixels:
    return np.asarray(sample(padded(picture), place), np.uint8)


def _cut_mask(mask: Mask, place: Place) -> Mask:
    """As `faces.sample` cuts a picture, for a mask."""
    missing = [(0, max(0, CROP_PX - side)) for side in mask.shape]
    to_frame = place @ np.diag([1 / CROP_PX, 1 / CROP_PX, 1.0])
    to_frame[:, 2] += 0.5 * to_frame[:, :2].sum(1) - 0.5  # from pixel corners to pixel centres
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    cut = cv2.warpAffine(np.pad(mask, missing, mode="symmetric"), to_frame, (CROP_PX, CROP_PX), flags=flags)
    return np.asarray(cut, np.float32)
