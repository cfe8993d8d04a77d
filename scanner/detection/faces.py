"""Frames in; faces, aligned crops, their quality and their tracks out.

Alignment is here, and nowhere else, because training and scanning must cut the very same crop: eyes level and in one
place, the whole head from hairline to chin inside. Tracks compare places only, never identities.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scanner.detection.mtcnn import Found

T = TypeVar("T")

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

CROP_PX = 256
TURNED_MIN = 0.98  # confidence asked of a face in a turned picture: the false ones in 3 x 222 photographs reach 0.97
MAX_PROBES = 4  # frames of a faceless video that are looked at again, turned
# Where eye, eye, nose, mouth, mouth lie in a crop (0..1). Shape: MTCNN's mean over 417 portraits, made symmetric.
# Scale: with an eye distance of 0.26 the chin lies near 0.90 and the top of the hair near 0 (85 drawn outlines).
TEMPLATE: Matrix = np.array([[0.37, 0.42], [0.63, 0.42], [0.5, 0.5679], [0.3809, 0.6881], [0.6191, 0.6881]])


@dataclass(frozen=True)
class Face:
    """One face: box x0, y0, x1, y1 and landmarks (5, 2) in frame pixels, confidence 0..1.

    Landmarks are eye, eye, nose, mouth corner, mouth corner, left to right in the picture.
    """

    box: tuple[float, float, float, float]
    landmarks: Floats
    confidence: float


@dataclass(frozen=True)
class Glance:
    """A wish: the faces of these frames (by number), each turned by so many quarters first (0 = as it stands)."""

    frames: Sequence[int]
    quarters: int


def all_around(shapes: Sequence[tuple[int, ...]]) -> Generator[Glance, list[list[T]], list[list[T]]]:
    """Which glances find the faces of one medium: yields each, is sent what was seen, returns the faces per frame.

    A shot (frames of one shape) without any face is looked at again on its sides and its head, a few frames first.
    A generator, because what it asks may be answered here, or by another process that is waited for.
    """
    faces = yield Glance(range(len(shapes)), 0)
    shots: dict[tuple[int, ...], list[int]] = {}
    for index, shape in enumerate(shapes):
        shots.setdefault(shape, []).append(index)
    for shot in shots.values():
        if any(faces[i] for i in shot):
            continue
        probes = shot[:: -(-len(shot) // MAX_PROBES)]
        for quarters in (1, 3, 2):
            if any((yield Glance(probes, quarters))):
                for i, found in zip(shot, (yield Glance(shot, quarters)), strict=True):
                    faces[i] = found
                break
    return faces


def answered(
    plan: Generator[Glance, list[list[T]], list[list[T]]], see: Callable[[Glance], list[list[T]]]
) -> list[list[T]]:
    """What `all_around` returns when `see` answers it."""
    seen: list[list[T]] | None = None
    while True:
        try:
            glance = next(plan) if seen is None else plan.send(seen)
        except StopIteration as ended:
            return cast("list[list[T]]", ended.value)
        seen = see(glance)


class FaceDetector:
    """Finds faces in frames; one per process, on "cpu" or "cuda". Threads are torch's own setting."""

    def __init__(self, device: str = "cpu") -> None:
        """Load the shipped cascade; raises BadWeights."""
        from scanner.detection.mtcnn import Mtcnn  # noqa: PLC0415 - work horses link and cut faces, and must not load torch

        self._cascade = Mtcnn(device=device)

    def detect(self, frames: Sequence[Pixels], *, min_face_px: int = 40, max_faces: int = 32) -> list[list[Face]]:
        """Faces per frame (H, W, 3) uint8 RGB, largest first; frames of equal size share batches.

        Faces are found at any tilt up to 45 degrees; a shot without any is looked at again on its sides and its head.
        From 7 Mpx on the smallest face grows with the picture (50 Mpx: 110 px), to bound the work.
        """

        def see(glance: Glance) -> list[list[Face]]:
            chosen = [frames[i] for i in glance.frames]
            return self.glance(chosen, quarters=glance.quarters, min_face_px=min_face_px, max_faces=max_faces)

        return answered(all_around([frame.shape for frame in frames]), see)

    def glance(
        self, frames: Sequence[Pixels], *, quarters: int = 0, min_face_px: int = 40, max_faces: int = 32
    ) -> list[list[Face]]:
        """Faces of each frame by itself, after `quarters` turns of `np.rot90`, in pixels of the unturned frame."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            shapes.setdefault(frame.shape, []).append(index)
        faces: list[list[Face]] = [[] for _ in frames]
        for same in shapes.values():
            for i, found in zip(same, self._look([frames[i] for i in same], quarters, min_face_px), strict=True):
                faces[i] = found[:max_faces]
        return faces

    def _look(self, frames: list[Pixels], quarters: int, min_face_px: int) -> list[list[Face]]:
        if not quarters:
            return [largest_first(one) for one in self._cascade.detect(frames, min_face_px=min_face_px)]
        turned = [np.ascontiguousarray(np.rot90(frame, quarters)) for frame in frames]
        height, width = frames[0].shape[:2]
        answers = self._cascade.detect(turned, min_face_px=min_face_px)
        faces = [[turned_back(face, quarters, width, height) for face in largest_first(one)] for one in answers]
        return [[face for face in some if face.confidence >= TURNED_MIN] for some in faces]


def turned_back(face: Face, quarters: int, width: int, height: int) -> Face:
    """A face found in `np.rot90(frame, quarters)` in pixels of the frame, which is width x height."""
    matrix = {1: [[0, -1, width], [1, 0, 0]], 2: [[-1, 0, width], [0, -1, height]], 3: [[0, 1, 0], [-1, 0, height]]}
    to_frame = np.array(matrix[quarters], np.float64)
    corners = mapped(to_frame, np.array(face.box).reshape(2, 2))
    (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
    landmarks = mapped(to_frame, face.landmarks).astype(np.float32)
    return Face((x0, y0, x1, y1), landmarks, face.confidence)


def largest_first(found: "Found") -> list[Face]:
    """The cascade's answer as faces, sorted by box area."""
    boxes = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in found.boxes]
    faces = [Face(b, p, float(c)) for b, p, c in zip(boxes, found.landmarks, found.confidence, strict=True)]
    return sorted(faces, key=lambda face: -area(face.box))


def area(box: tuple[float, float, float, float]) -> float:
    """Pixels in a box."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def similarity(source: npt.ArrayLike, target: npt.ArrayLike) -> Matrix:
    """The 2x3 rotation + scale + shift that takes `source` (N, 2) closest to `target` (N, 2) (Umeyama 1991)."""
    a, b = np.asarray(source, np.float64), np.asarray(target, np.float64)
    # in the plane: z -> w z + t with complex w, by least squares; never a reflection
    za, zb = a @ (1, 1j), b @ (1, 1j)
    ca, cb = za - za.mean(), zb - zb.mean()
    w = (ca.conj() @ cb) / max(float((ca.conj() @ ca).real), 1e-12)
    t = zb.mean() - w * za.mean()
    return np.array([[w.real, -w.imag, t.real], [w.imag, w.real, t.imag]])


def mapped(matrix: Matrix, points: Matrix | Floats) -> Matrix:
    """Points (N, 2) through a 2x3 affine."""
    return points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]


def align(frame: Pixels, face: Face, *, size: int = CROP_PX) -> tuple[Pixels, Matrix]:
    """Crop (size, size, 3) uint8 RGB with the five landmarks on the template, and crop_to_frame (2, 3).

    crop_to_frame takes crop coordinates (u, v) in 0..1 to frame pixels: x = a*u + b*v + c, y = d*u + e*v + f, where a
    pixel's centre has coordinates + 0.5. Outside of the frame the picture is mirrored.
    """
    crop_to_frame = similarity(TEMPLATE, face.landmarks)
    return sample(frame, crop_to_frame, size=size), crop_to_frame


def sample(frame: Pixels, crop_to_frame: Matrix, *, size: int = CROP_PX) -> Pixels:
    """The crop (size, size, 3) that `crop_to_frame` names; training cuts its crops with it too."""
    step = float(np.hypot(*crop_to_frame[:, 0])) / size  # frame pixels per crop pixel
    # Shrinking averages: sampled 2 to 4 times too densely, then box-filtered. Sampling once, after a shrink to the
    # crop's scale, took 25 % more of the fine noise that betrays a forgery, and took it in patches.
    halvings = max(0, int(np.ceil(np.log2(max(step / 4, 0.5)))))
    dense = max(1, int(np.ceil(step / 2**halvings)))
    region, (x0, y0) = around(frame, crop_to_frame, 2**halvings)
    to_unit = np.diag([1 / (size * dense), 1 / (size * dense), 1.0])
    to_unit[:2, 2] = 0.5 / (size * dense)  # pixel i has its centre at (i + 0.5) / size
    matrix = crop_to_frame @ to_unit
    matrix[:, 2] -= x0, y0
    matrix /= 2**halvings
    matrix[:, 2] -= 0.5  # warpAffine counts from pixel centres
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if dense > 1 else cv2.INTER_CUBIC)
    crop = cv2.warpAffine(region, matrix, (size * dense, size * dense), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    if dense > 1:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)


def around(frame: Pixels, crop_to_frame: Matrix, shrink: int) -> tuple[Pixels, tuple[int, int]]:
    """The part of the frame that a crop needs, shrunk by a whole number, and where it begins.

    So a 50 Mpx frame costs no more than its face.
    """
    corners = mapped(crop_to_frame, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    ends = np.array([frame.shape[1], frame.shape[0]])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2 * shrink, 0, ends - 1)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 2 * shrink, low + 1, ends)
    w, h = np.maximum((high - low) // shrink, 1).tolist()
    x0, y0 = low.tolist()
    part = frame[y0 : y0 + h * shrink, x0 : x0 + w * shrink]
    if shrink > 1:
        part = np.asarray(cv2.resize(part, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
    return part, (x0, y0)


@dataclass(frozen=True)
class Quality:
    """How well a face can be judged: score 0..1 and what is wrong with it, in stable words."""

    score: float
    warnings: tuple[str, ...]


def judge_quality(frame: Pixels, face: Face, crop: Pixels) -> Quality:
    """Size, sharpness, pose, the frame's border and the detector's confidence; `crop` is the face's own from `align`.

    Warnings: "tiny face", "blurred", "turned away", "cut off", "doubtful face". The score is the product of five
    factors that are 1 where a judge need not care.
    """
    x0, y0, x1, y1 = face.box
    height, width = frame.shape[:2]
    inside = area((max(x0, 0.0), max(y0, 0.0), min(x1, width), min(y1, height))) / max(area(face.box), 1.0)
    side_px, sharp, turn = float(np.sqrt(area(face.box))), sharpness(crop, face), turned_away(face)
    # (value, warn below, worth nothing at, perfect at); bounds measured on 204 portraits, see the functions
    scales = {
        "tiny face": (side_px, 56.0, 16.0, 96.0),
        "blurred": (np.log(sharp), np.log(0.03), np.log(0.003), np.log(0.1)),
        "turned away": (-turn, -0.3, -0.8, -0.2),
        "cut off": (inside, 0.85, 0.4, 0.95),
        "doubtful face": (face.confidence, 0.97, 0.8, 0.99),
    }
    worth = [min(max((value - low) / (high - low), 0.0), 1.0) for value, _, low, high in scales.values()]
    warnings = tuple(name for name, (value, bound, _, _) in scales.items() if value < bound)
    return Quality(float(np.prod(worth)), warnings)


def sharpness(crop: Pixels, face: Face) -> float:
    """Variance of the Laplacian over the variance of the luma, inside the face, at the face's own size up to 128 px.

    Measured: sharp portraits 0.1 to 1.3; blurred by sigma = face height / 100 0.03 to 0.1, / 40 0.006 to 0.04.
    """
    side = int(np.clip((face.box[3] - face.box[1]) * 1.33, 24, 128))  # a crop is about 1.33 boxes high
    luma = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA)
    inner = luma[side // 4 : side * 17 // 20, side // 4 : side * 3 // 4].astype(np.float32)
    return max(float(cv2.Laplacian(inner, cv2.CV_32F).var() / max(inner.var(), 25.0)), 1e-6)


def turned_away(face: Face) -> float:
    """How far the nose is off the middle of eyes and mouth, in eye distances of a frontal face.

    Sideways plus what nodding exceeds; measured: 95 % of official portraits up to 0.27, profiles 0.35 to 0.7.
    """
    to_crop = similarity(face.landmarks, TEMPLATE)
    points = mapped(to_crop, face.landmarks) / (TEMPLATE[1, 0] - TEMPLATE[0, 0])
    eyes, nose, mouth = points[:2].mean(0), points[2], points[3:].mean(0)
    sideways = abs(nose[0] - (eyes[0] + mouth[0]) / 2)
    nod = (nose[1] - eyes[1]) / max(mouth[1] - eyes[1], 1e-6)  # 0.36 to 0.78 in 204 portraits
    return float(sideways + max(0.0, abs(nod - 0.57) - 0.23))


def link(faces: Sequence[Sequence[Face]], times_s: Sequence[float | None]) -> list[list[int]]:
    """Track number of each face of each frame, from 0 in order of appearance; frames in time order.

    A face joins the nearest track (greedily, best pair first) whose last face was seen at most 60 s ago, lies within
    one face side of it (half a side after more than 1 s) and is at most 1.6 times larger or smaller.
    """
    last: list[tuple[Face, float]] = []  # per track: its newest face and when
    numbers: list[list[int]] = []
    for index, (some, time_s) in enumerate(zip(faces, times_s, strict=True)):
        now_s = float(index) if time_s is None else time_s
        pairs = [
            (distance(face, old, now_s - then_s), t, i)
            for t, (old, then_s) in enumerate(last)
            for i, face in enumerate(some)
        ]
        tracks: dict[int, int] = {}
        for cost, track, i in sorted(pairs):
            if cost < 1 and i not in tracks and track not in tracks.values():
                tracks[i] = track
        for i in range(len(some)):
            if i not in tracks:
                tracks[i] = len(last)
                last.append((some[i], now_s))
            last[tracks[i]] = (some[i], now_s)
        numbers.append([tracks[i] for i in range(len(some))])
    return numbers


def distance(face: Face, old: Face, gap_s: float) -> float:
    """How unlikely two boxes are one head, `gap_s` apart; 1 and more is another."""
    (x0, y0, x1, y1), (u0, v0, u1, v1) = face.box, old.box
    side, old_side = (max(np.sqrt(area(box)), 1.0) for box in (face.box, old.box))
    shift = np.hypot(x0 + x1 - u0 - u1, y0 + y1 - v0 - v1) / 2 / ((side + old_side) / 2)
    growth = abs(np.log(side / old_side)) / np.log(1.6)
    return float(max(shift / (1.0 if gap_s <= 1 else 0.5), growth, gap_s / 60))
