"""Frames in; faces, aligned crops, their quality and their tracks out.

Alignment is here, and nowhere else, because training and scanning must cut the very same crop: eyes level and in one place,
the whole head from hairline to chin inside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from scanner.mtcnn import Found, Mtcnn

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

CROP_PX = 256
# Where eye, eye, nose, mouth, mouth lie in a crop (0..1). Shape: mean of MTCNN's points over 417 portraits, made symmetric.
# Scale: with an eye distance of 0.26 of the crop the chin lies near 0.90 and the top of the hair near 0 (85 outlines).
TEMPLATE: Matrix = np.array([[0.37, 0.42], [0.63, 0.42], [0.5, 0.5679], [0.3809, 0.6881], [0.6191, 0.6881]])


@dataclass(frozen=True)
class Face:
    """One face: box x0, y0, x1, y1 and landmarks (5, 2) in frame pixels, confidence 0..1.

    Landmarks are eye, eye, nose, mouth corner, mouth corner, left to right in the picture.
    """

    box: tuple[float, float, float, float]
    landmarks: Floats
    confidence: float


class FaceDetector:
    """Finds faces in frames; one per process, on the CPU or on `cuda`. Threads are torch's own setting."""

    def __init__(self, device: str = "cpu") -> None:
        """Load the shipped cascade; raises BadWeights."""
        self._cascade = Mtcnn(device=device)

    def detect(self, frames: Sequence[Pixels], *, min_face_px: int = 40, max_faces: int = 32) -> list[list[Face]]:
        """Faces per frame (H, W, 3) uint8 RGB, largest first; frames of equal size share batches."""
        shapes: dict[tuple[int, ...], list[int]] = {}
        for index, frame in enumerate(frames):
            shapes.setdefault(frame.shape, []).append(index)
        faces: list[list[Face]] = [[] for _ in frames]
        for same in shapes.values():
            found = self._cascade.detect([frames[i] for i in same], min_face_px=min_face_px)
            for i, one in zip(same, found, strict=True):
                faces[i] = largest_first(one)[:max_faces]
        return faces


def largest_first(found: Found) -> list[Face]:
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


def align(frame: Pixels, face: Face, *, size: int = CROP_PX) -> tuple[Pixels, Matrix]:
    """Crop (size, size, 3) uint8 RGB with the five landmarks on the template, and crop_to_frame (2, 3).

    crop_to_frame takes crop coordinates (u, v) in 0..1 to frame pixels: x = a*u + b*v + c, y = d*u + e*v + f, where a
    pixel's centre has coordinates + 0.5. Outside of the frame the picture is mirrored. Shrinking averages, so that no
    aliasing covers the traces of a forgery.
    """
    crop_to_frame = similarity(TEMPLATE, face.landmarks)
    corners = crop_to_frame @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]], np.float64)
    height, width = frame.shape[:2]
    # the region of interest, so that a 50 Mpx frame costs no more than its face
    x0, y0 = (max(int(np.floor(v)) - 2, 0) for v in corners.min(1))
    x1, y1 = min(int(np.ceil(corners[0].max())) + 2, width), min(int(np.ceil(corners[1].max())) + 2, height)
    x0, y0 = min(x0, width - 1), min(y0, height - 1)
    region = frame[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
    step = float(np.hypot(*crop_to_frame[:, 0])) / size  # frame pixels per crop pixel
    shrink_x, shrink_y = 1.0, 1.0
    if step > 1:  # average down to the crop's own scale first
        h, w = (max(1, round(n / step)) for n in region.shape[:2])
        shrink_x, shrink_y = region.shape[1] / w, region.shape[0] / h
        region = np.asarray(cv2.resize(region, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
    # crop pixel i has its centre at u = (i + 0.5) / size; warpAffine counts pixels from their centres
    to_unit = np.array([[1 / size, 0, 0.5 / size], [0, 1 / size, 0.5 / size], [0, 0, 1]])
    to_region = np.array([[1 / shrink_x, 0, -x0 / shrink_x - 0.5], [0, 1 / shrink_y, -y0 / shrink_y - 0.5]])
    matrix = to_region @ np.vstack([crop_to_frame, [0, 0, 1]]) @ to_unit
    flags = cv2.WARP_INVERSE_MAP | (cv2.INTER_LINEAR if step > 1 else cv2.INTER_CUBIC)
    crop = cv2.warpAffine(region, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(crop, np.uint8), crop_to_frame
