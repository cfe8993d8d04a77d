"""Recall and time of the face detector beside OpenCV's Haar cascade: `python tests/bench_faces.py [PER_FOLDER]`.

A face counts as found when a box has its centre within half a face side of the true one and 0.5 to 2 times its side.
The truth is the box in the untouched portrait (looked at by eye), carried through each change.
"""

import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from scanner.detection.faces import FaceDetector, Floats, Pixels

DATA = Path(__file__).parents[2] / "shared" / "data"
FOLDERS = ("fellows", "congress", "london_neutral", "london_smiling", "canada")
Detect = Callable[[Pixels], Floats]  # frame -> (N, 3): centre x, y and side of each box


@dataclass(frozen=True)
class Case:
    """A picture and the faces in it, (N, 3): centre x, y, side in px."""

    frame: Pixels
    faces: Floats


def cascade(detector: FaceDetector) -> Detect:
    """Our detector."""

    def detect(frame: Pixels) -> Floats:
        return as_discs(np.array([face.box for face in detector.detect([frame], max_faces=64)[0]]).reshape(-1, 4))

    return detect


def haar() -> Detect:
    """OpenCV's frontal-face cascade with its usual parameters."""
    model = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")

    def detect(frame: Pixels) -> Floats:
        found = model.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 1.1, 5, minSize=(36, 36))
        boxes = np.array(found, np.float32).reshape(-1, 4)
        return as_discs(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1))

    return detect


def as_discs(boxes: Floats) -> Floats:
    """Boxes (N, 4) x0 y0 x1 y1 as centre x, y and side (root of the area)."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / 2, np.sqrt(size.prod(1, keepdims=True))], 1).astype(np.float32)


def matched(faces: Floats, found: Floats) -> tuple[int, int]:
    """How many faces were found, and how many boxes are no face."""
    near = np.hypot(*(faces[:, None, :2] - found[:, :2]).transpose(2, 0, 1)) < faces[:, None, 2] / 2
    ratio = found[:, 2] / np.maximum(faces[:, None, 2], 1)
    hit = near & (ratio > 0.5) & (ratio < 2)
    return int(hit.any(1).sum()), int((~hit.any(0)).sum())


def moved(case: Case, matrix: np.ndarray, size: tuple[int, int]) -> Case:
    """The picture through a 2x3 similarity onto a canvas of `size` (w, h)."""
    scale = float(np.hypot(*matrix[:, 0]))
    frame = cv2.GaussianBlur(case.frame, (0, 0), 0.4 / scale) if scale < 0.8 else case.frame
    frame = cv2.warpAffine(frame, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    centres = case.faces[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return Case(np.asarray(frame, np.uint8), np.concatenate([centres, case.faces[:, 2:] * scale], 1).astype(np.float32))


def turned(case: Case, degrees: float) -> Case:
    """Tilted around the face; the canvas grows so that nothing is cut off."""
    height, width = case.frame.shape[:2]
    side = int(np.hypot(height, width))
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[:, 2] += (side - width) / 2, (side - height) / 2
    return moved(case, matrix, (side, side))


def shrunk(case: Case, face_px: float) -> Case:
    """So small that the face measures `face_px`."""
    scale = min(face_px / float(case.faces[0, 2]), 1.0)
    height, width = case.frame.shape[:2]
    matrix = np.array([[scale, 0, 0], [0, scale, 0]])
    return moved(case, matrix, (max(1, round(width * scale)), max(1, round(height * scale))))


def avatar(case: Case) -> Case:
    """An 80x80 thumbnail around the face."""
    x, y, side = case.faces[0]
    scale = 80 / (1.6 * side)
    return moved(case, np.array([[scale, 0, 40 - scale * x], [0, scale, 40 - scale * y]]), (80, 80))


def jpeg(case: Case, quality: int) -> Case:
    """Encoded and decoded."""
    data = cv2.imencode(".jpg", case.frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return Case(np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]), case.faces)


def dark(case: Case) -> Case:
    """A third of the light."""
    return Case((case.frame * 0.3).astype(np.uint8), case.faces)


def blurred(case: Case) -> Case:
    """Out of focus by a 20th of the face."""
    sigma = float(case.faces[0, 2]) / 20
    return Case(np.asarray(cv2.GaussianBlur(case.frame, (0, 0), sigma), np.uint8), case.faces)


def collages(cases: list[Case], *, columns: int = 6, rows: int = 5, tile_px: int = 200) -> Iterator[Case]:
    """Canvases of columns x rows heads, faces of 45 to 110 px."""
    rng = np.random.default_rng(7)
    for start in range(0, len(cases) - columns * rows + 1, columns * rows):
        canvas = np.zeros((rows * tile_px, columns * tile_px, 3), np.uint8)
        faces = []
        for i, case in enumerate(cases[start : start + columns * rows]):
            x, y, side = case.faces[0]
            scale = rng.uniform(45, 110) / side
            half = tile_px / 2
            tile = moved(
                case, np.array([[scale, 0, half - scale * x], [0, scale, half - scale * y]]), (tile_px, tile_px)
            )
            left, top = i % columns * tile_px, i // columns * tile_px
            canvas[top : top + tile_px, left : left + tile_px] = tile.frame
            faces.append(tile.faces[0] + (left, top, 0))
        yield Case(canvas, np.array(faces, np.float32))


def read(path: Path) -> Pixels:
    """RGB."""
    return np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1])


def portraits(detect: Detect, per_folder: int) -> list[Case]:
    """Every n-th portrait of each folder with its (largest) face as the truth."""
    cases = []
    for folder in FOLDERS:
        paths = sorted((DATA / "faces" / folder).glob("*.jpg"))
        for path in paths[:: max(1, len(paths) // per_folder)]:
            frame = read(path)
            if len(found := detect(frame)):
                cases.append(Case(frame, found[:1]))
    return cases


CHANGES: dict[str, Callable[[Case], Case]] = {
    "as they are": lambda case: case,
    "tilted 15 deg": lambda case: turned(case, 15),
    "tilted 30 deg": lambda case: turned(case, 30),
    "tilted 45 deg": lambda case: turned(case, -45),
    "on the side": lambda case: turned(case, 90),
    "upside down": lambda case: turned(case, 180),
    "face 80 px": lambda case: shrunk(case, 80),
    "face 40 px": lambda case: shrunk(case, 40),
    "avatar 80x80": avatar,
    "JPEG 30": lambda case: jpeg(case, 30),
    "JPEG 10": lambda case: jpeg(case, 10),
    "dark": dark,
    "blurred": blurred,
}


def row(name: str, cases: list[Case], detectors: list[Detect]) -> str:
    """One line: recall, false boxes and ms per picture of each detector."""
    parts = [f"{name:18}{sum(len(case.faces) for case in cases):6}"]
    for detect in detectors:
        start = time.perf_counter()
        answers = [detect(case.frame) for case in cases]
        spent_s = (time.perf_counter() - start) / max(1, len(cases))
        scores = np.array([matched(case.faces, found) for case, found in zip(cases, answers, strict=True)])
        total = max(1, sum(len(case.faces) for case in cases))
        parts.append(f"{scores[:, 0].sum() / total:10.1%}{scores[:, 1].sum():7}{spent_s * 1e3:8.1f}")
    return "".join(parts)


def main() -> None:
    """Print the table."""
    per_folder = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "numpy", "opencv-python-headless")
    )
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {versions}, 1 thread")
    print(f"{'':18}{'faces':>6}{'ours':>10}{'false':>7}{'ms':>8}{'Haar':>10}{'false':>7}{'ms':>8}")
    detectors = [cascade(FaceDetector()), haar()]
    cases = portraits(detectors[0], per_folder)
    for name, change in CHANGES.items():
        print(row(name, [change(case) for case in cases], detectors), flush=True)
    print(row("30 on one canvas", list(collages(cases)), detectors))
    nobody = [Case(read(path), np.zeros((0, 3), np.float32)) for path in sorted((DATA / "natural").glob("*/*.jpg"))]
    print(row("natural photos", nobody, detectors), "(some of them do show people)")


if __name__ == "__main__":
    main()
