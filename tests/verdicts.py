"""Verdicts made by the real `judge` from invented scores, for the tests of what comes after a scan."""

from dataclasses import dataclass

import numpy as np

from scanner.contract import Media, ModelInfo
from scanner.detection import tiles
from scanner.detection.model import SeenTile
from scanner.detection.survey import Survey
from scanner.verdict import Calibration, FrameInfo, ScoredFace, judge

CALIBRATION = Calibration(slope=1.0, intercept=0.0, authentic=0.3, manipulated=0.8)  # raw = log-odds
MODEL = ModelInfo(model_id="test", backend="cpu", precision="fp32")
PICTURE = Media(kind="image", format="jpeg", size_bytes=900_000, width=800, height=600, sha256="0" * 64)
VIDEO = Media(kind="video", format="mp4", size_bytes=9_000_000, width=800, height=600, sha256="0" * 64, duration_s=32.0)
LOW, HIGH = -4.0, 4.0  # clearly authentic, clearly manipulated


@dataclass(frozen=True)
class BoxedFace:
    """What judging needs of `faces.Face`, without loading torch."""

    box: tuple[float, float, float, float] = (100.0, 100.0, 300.0, 300.0)
    landmarks: np.ndarray = None
    confidence: float = 1.0


@dataclass(frozen=True)
class Rated:
    """What judging needs of a quality."""

    score: float = 1.0
    warnings: tuple[str, ...] = ()


def scored(  # noqa: PLR0913, PLR0917 - a builder: tests name what they vary
    raw, frame=0, track=0, quality=1.0, peak_at=None, warnings=(), side_px=200.0
):
    attention = np.full((16, 16), max(raw, 0.0) / 10, np.float32)
    if peak_at:
        attention[peak_at] += 5
    to_frame = np.array([[side_px, 0, 100], [0, side_px, 100]], float)
    box = (100.0, 100.0, 100.0 + side_px, 100.0 + side_px)
    return ScoredFace(BoxedFace(box), frame, track, Rated(quality, warnings), raw, attention, to_frame)


def still(*faces, **options):
    return judge(
        faces,
        [FrameInfo(0, None, 800, 600)],
        media=PICTURE,
        model=MODEL,
        calibration=CALIBRATION,
        timings_s={},
        **options,
    )


REGION_CALIBRATION = Calibration(slope=1.0, intercept=0.0, authentic=0.2, manipulated=0.95)


def surveyed(*holes, size=(600, 800), raw=5.0, calibration=REGION_CALIBRATION):
    """A survey by an ideal judge: tiles that hold a part of a hole (x0, y0, x1, y1) score `raw`, the others -5."""
    plan, seen = tiles.plan(*size), []
    for tile in plan:
        x0, y0, x1, y1 = tile.box
        middles = np.linspace(0, 1, 33)[1::2]
        xs, ys = x0 + middles * (x1 - x0), y0 + middles * (y1 - y0)
        inside = [np.outer((ys > b) & (ys < d), (xs > a) & (xs < c)) for a, b, c, d in holes]
        hot = np.any(inside, axis=0) if inside else np.zeros((16, 16), bool)
        seen.append(SeenTile(raw if hot.any() else -5.0, (3 * hot - 0.1).astype(np.float32)))
    return Survey(size, plan, seen, calibration)


def film(faces, frame_count=16, media=VIDEO, **options):
    frames = [FrameInfo(i * 50, i * 2.0, 800, 600) for i in range(frame_count)]
    return judge(faces, frames, media=media, model=MODEL, calibration=CALIBRATION, timings_s={}, **options)


def talking_head(raws, track=0, first=0):
    return [scored(raw, frame=first + i, track=track) for i, raw in enumerate(raws)]
