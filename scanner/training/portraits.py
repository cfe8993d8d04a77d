"""Photographs in, upright portraits with landmarks and an identity out: the raw material of training.

Each portrait is a square canvas, somewhat larger than the crop that the detector sees, so that jitter has room.
Splits are by identity, never by file.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner.detection.faces import Face, FaceDetector, align

CANVAS_PX = 352
CROP_PX = 256
MARGIN_PX = (CANVAS_PX - CROP_PX) // 2

Split = Literal["train", "val", "test"]
Pixels = NDArray[np.uint8]
Points = NDArray[np.float32]
F = TypeVar("F", np.float32, np.float64)


@dataclass(frozen=True)
class Portrait:
    """One face, upright, with room around it."""

    canvas: Pixels  # (CANVAS_PX, CANVAS_PX, 3) RGB
    shape: Points  # (189, 2) landmarks in canvas px, see `region`
    identity: str
    source: str  # the folder it comes from
    scale: float  # canvas px per pixel of the photograph: above 1 it was enlarged


# Landmarks of the Face Research Lab London set that bound each part of a face (convex hulls, but for hair).
_REGIONS: dict[str, tuple[int, ...]] = {
    "left_eye": (18, 19, 20, 21, 22, 28, 29, 30),
    "right_eye": (23, 24, 25, 26, 27, 31, 32, 33),
    "left_brow": (71, 72, 73, 74, 75, 76, 83, 84),
    "right_brow": (77, 78, 79, 80, 81, 82, 85, 86),
    "eyes": (71, 72, 73, 74, 75, 78, 79, 80, 81, 82, 44, 49, 45, 48),
    "nose": (50, 56, 61, 62, 63, 64, 55, 69, 68, 67, 66),
    "mouth": (87, 88, 89, 90, 91, 92, 93, 104, 105, 106, 107, 108),
    "lower": (44, 49, 110, 111, 125, 126, 127, 128, 129, 130, 131, 132, 133, 114, 113),
    "inner": (72, 73, 74, 79, 80, 81, 109, 110, 112, 113, 125, 126, 127, 130, 131, 132, 133, 128, 129),
    "oval": (134, 109, 110, 111, 125, 126, 127, 128, 129, 130, 131, 132, 133, 114, 113, 112, 144, 143, 142, 141, 140,
             139, 138, 137, 136, 135),
    "hair": (134, 148, 149, 150, 152, 153, 154, 144, 143, 142, 141, 140, 139, 138, 137, 136, 135),
}  # fmt: skip
REGIONS = tuple(_REGIONS)


def region(shape: Points, name: str) -> Points:
    """The polygon (n, 2) of one named part of a face."""
    return shape[list(_REGIONS[name])]


@cache
def mean_shape() -> Points:
    """The mean face (189, 2) in crop coordinates 0..1.

    Source: hand-placed landmarks of the Face Research Lab London Set (DeBruine & Jones 2017, CC BY 4.0), which we
    averaged.
    """
    text = resources.files("scanner.training").joinpath("mean_shape.json").read_text()
    return np.array(json.loads(text), np.float32)


def split_of(identity: str) -> Split:
    """Which split an identity belongs to, for ever: 80 % train, 10 % val, 10 % test, by its hash."""
    bucket = int(hashlib.sha256(identity.encode()).hexdigest()[:8], 16) % 10
    return "val" if bucket == 0 else "test" if bucket == 1 else "train"


def identity_of(path: Path) -> str:
    """The name up to `__`, or the whole stem: pictures of one person share it."""
    return path.stem.split("__")[0]


def cut(frame: Pixels, face: Face, *, identity: str, source: str, landmarks: Points | None = None) -> Portrait:
    """The portrait of one detected face; `landmarks` (189, 2) in frame px when they are known by hand."""
    _, crop_to_frame = align(frame, face, size=CROP_PX)
    to_frame = crop_to_frame @ np.array(
        [[1 / CROP_PX, 0, -MARGIN_PX / CROP_PX], [0, 1 / CROP_PX, -MARGIN_PX / CROP_PX], [0, 0, 1]]
    )  # canvas px -> frame px
    shrink = float(np.hypot(*to_frame[:, 0]))  # frame px per canvas px
    picture, inverse = frame, to_frame
    if shrink > 1.5:  # average before sampling, or the traces of the camera alias
        factor = 1 / shrink
        picture = np.asarray(cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
        inverse = np.diag([picture.shape[1] / frame.shape[1], picture.shape[0] / frame.shape[0]]) @ to_frame
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    canvas = cv2.warpAffine(picture, inverse, (CANVAS_PX, CANVAS_PX), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    frame_to_canvas = cv2.invertAffineTransform(to_frame)
    if landmarks is None:
        landmarks = _shape_from_five(face, crop_to_frame)
    shape = landmarks @ frame_to_canvas[:, :2].T + frame_to_canvas[:, 2]
    return Portrait(np.asarray(canvas, np.uint8), shape.astype(np.float32), identity, source, 1 / shrink)


FIVE = ((0,), (1,), (54, 55, 60), (87,), (93,))  # pupils, nose tip, mouth corners, among the 189


def five_of(shape: NDArray[F]) -> NDArray[F]:
    """The five alignment points (5, 2) of a full shape."""
    return np.stack([shape[list(index)].mean(0) for index in FIVE])


def _shape_from_five(face: Face, crop_to_frame: NDArray[np.float64]) -> Points:
    """The mean shape, bent affinely onto the five detected points, in frame px."""
    mean = np.asarray(mean_shape() @ crop_to_frame[:, :2].T + crop_to_frame[:, 2], np.float64)
    five = np.hstack([five_of(mean), np.ones((5, 1))])
    bend, *_ = np.linalg.lstsq(five, face.landmarks - five[:, :2], rcond=None)  # (3, 2)
    # Half of the correction: five points are too few to trust with the outline of the head.
    return np.asarray(mean + 0.5 * np.hstack([mean, np.ones((len(mean), 1))]) @ bend, np.float32)


def read(path: Path) -> Pixels:
    """A training picture, RGB uint8; our own files, so no jail."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        msg = f"cannot read {path}"
        raise OSError(msg)
    return np.asarray(bgr[:, :, ::-1], np.uint8)


def from_files(
    paths: Iterable[Path], detector: FaceDetector, *, landmarks: dict[str, Sequence[Sequence[float]]] | None = None
) -> list[Portrait]:
    """Portraits of the largest face of each picture; pictures without a face are left out."""
    portraits = []
    for path in paths:
        frame = read(path)
        faces = detector.detect([frame])[0]
        if faces:
            known = (landmarks or {}).get(f"{path.parent.name}/{path.name}")
            points = np.array(known, np.float32) if known is not None else None
            source = path.parent.name
            portraits.append(cut(frame, faces[0], identity=identity_of(path), source=source, landmarks=points))
    return portraits


def save(portraits: Sequence[Portrait], path: Path) -> None:
    """Keep portraits as one .npz, so that detection runs once."""
    np.savez(
        path,
        canvas=np.stack([p.canvas for p in portraits]),
        shape=np.stack([p.shape for p in portraits]),
        identity=np.array([p.identity for p in portraits]),
        source=np.array([p.source for p in portraits]),
        scale=np.array([p.scale for p in portraits]),
    )


def load(path: Path) -> list[Portrait]:
    """The portraits that `save` kept."""
    with np.load(path, allow_pickle=False) as data:
        rows = zip(data["canvas"], data["shape"], data["identity"], data["source"], data["scale"], strict=True)
        return [Portrait(c, s, str(i), str(o), float(k)) for c, s, i, o, k in rows]
