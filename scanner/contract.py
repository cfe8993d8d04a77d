"""What a scan answers: one set of structs for the CLI, the API, the cache and the extension.

Encoding is JSON by msgspec; decoding is validation.
Boxes are in pixels of the upright picture or frame, times in seconds, scores in 0..1: higher = more likely manipulated.
A `score` is null unless something was judged: no number ever stands in for a failure.
"""

from enum import StrEnum
from typing import Literal

import msgspec

VERDICT_VERSION = 1


class Label(StrEnum):
    """What we say of a medium."""

    AUTHENTIC = "authentic"
    MANIPULATED = "manipulated"
    INCONCLUSIVE = "inconclusive"
    NO_FACE = "no_face"


class AttentionMap(msgspec.Struct, frozen=True):
    """Where the evidence for `manipulated` lies in one crop.

    `grid` is size x size bytes, row by row (base64 in JSON): 0 = none, 255 = the strongest cell.
    `peak` is the strongest cell's contribution before scaling (unit: activation).
    `crop_to_frame` is the 2x3 affine (a, b, c, d, e, f) that takes crop coordinates 0..1 to frame
    pixels: x = a*u + b*v + c, y = d*u + e*v + f.
    """

    size: int
    grid: bytes
    peak: float
    crop_to_frame: tuple[float, float, float, float, float, float]


class FaceEvidence(msgspec.Struct, frozen=True):
    """One face in one frame: where, when, how likely manipulated, and why."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in frame pixels
    frame: int  # index into `Verdict.frames`
    track: int  # the same person over frames
    score: float | None  # null when the face is too poor to judge
    quality: float  # 0..1: size, sharpness, pose
    attention: AttentionMap | None = None
    warnings: tuple[str, ...] = ()


class FrameEvidence(msgspec.Struct, frozen=True):
    """One sampled frame; `time_s` is null for a still picture, `score` when no face was judged."""

    index: int
    time_s: float | None
    width: int
    height: int
    score: float | None


class Span(msgspec.Struct, frozen=True):
    """The stretch of a video with the strongest evidence."""

    start_s: float
    end_s: float
    score: float


class Region(msgspec.Struct, frozen=True):
    """A part of the whole picture that looks inpainted (not a face); pictures only, no videos or animations."""

    box: tuple[float, float, float, float]  # x0, y0, x1, y1 in picture pixels
    score: float  # at least `Verdict.region_threshold`


class Media(msgspec.Struct, frozen=True):
    """What was judged."""

    kind: Literal["image", "animation", "video"]
    format: str  # as found by content, e.g. "jpeg", "mp4"
    size_bytes: int
    width: int
    height: int
    sha256: str
    duration_s: float | None = None
    frame_count: int | None = None  # null when the container does not tell


class ModelInfo(msgspec.Struct, frozen=True):
    """Who judged; `model_id` = digest of weights + preprocessing + thresholds."""

    model_id: str
    backend: str
    precision: str


class Thresholds(msgspec.Struct, frozen=True):
    """Label rule: score >= manipulated -> manipulated, <= authentic -> authentic, else inconclusive."""

    authentic: float
    manipulated: float


class CacheInfo(msgspec.Struct, frozen=True):
    """Where the verdict came from; distance (bits) and age for a remembered one.

    `near` is provisional: it is the verdict on another picture, whose sha256 is `root`, of which this one is a
    re-encoded copy. With `audit` these very bytes are to be scanned, too, when there is time.
    `by` tells what of an `exact` one was the same: the URL alone, which was not asked again, the bytes, or the pixels.
    """

    kind: Literal["miss", "exact", "near"] = "miss"
    distance: int | None = None
    age_s: float | None = None
    root: str | None = None
    audit: bool = False
    by: Literal["url", "sha256", "pixels"] | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one medium, with its evidence.

    `score` is the larger of what the faces (of a picture: its `frames[0].score`) and the strongest region say.
    `region_threshold` is null where only faces were looked at; it is never below `thresholds.manipulated`, so the label
    rule holds for every score.
    """

    version: int = VERDICT_VERSION
    label: Label
    score: float | None
    thresholds: Thresholds
    reason: str
    faces: tuple[FaceEvidence, ...]
    frames: tuple[FrameEvidence, ...]
    worst_span: Span | None = None
    regions: tuple[Region, ...] = ()  # surest first
    region_threshold: float | None = None
    media: Media
    model: ModelInfo
    cache: CacheInfo = CacheInfo()
    timings_s: dict[str, float]
    warnings: tuple[str, ...] = ()


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The short form of a remembered verdict: all but the evidence."""

    label: Label
    score: float | None
    reason: str
    thresholds: Thresholds
    sha256: str
    model_id: str
    age_s: float | None


class Failure(msgspec.Struct, frozen=True):
    """Why there is no verdict; `code` is one of `scanner.errors`."""

    code: str
    message: str
    retryable: bool
    retry_after_s: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of `verdict` and `failure` is set; `source` is as the user gave it."""

    source: str
    verdict: Verdict | None = None
    failure: Failure | None = None

    def __post_init__(self) -> None:
        if (self.verdict is None) == (self.failure is None):
            msg = "an outcome has either a verdict or a failure"
            raise ValueError(msg)


QueueName = Literal["interactive", "bulk"]
"""Somebody waits for the first; the second is a list that takes as long as it takes."""
ScanState = Literal["queued", "running", "done", "failed", "cancelled"]
"""The last three are terminal and carry an outcome: a verdict in `done`, a failure in the other two."""


class ScanRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asks to be scanned: a URL, or an upload by the sha256 of its bytes; raises ValueError unless one.

    `name` is what an upload is called in answers. `rescan` does not answer from memory.
    """

    source_url: str | None = None
    upload: str | None = None
    name: str = "upload"
    tenant: str
    queue: QueueName = "interactive"
    rescan: bool = False

    def __post_init__(self) -> None:
        if (self.source_url is None) == (self.upload is None):
            msg = "give either a URL or an upload"
            raise ValueError(msg)

    @property
    def source(self) -> str:
        """What the outcome calls it."""
        return self.name if self.source_url is None else self.source_url


class ScanRow(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted scan as the ledger knows it; times are Redis's, seconds since 1970."""

    id: str
    tenant: str
    source: str
    queue: QueueName
    state: ScanState
    stage: str | None = None  # one of pipeline.STAGES, while running
    percent: float | None = None  # 0..100 of that stage; null when its end is not known
    position: int | None = None  # scans ahead in the same queue, while queued
    attempt: int = 0  # how often a worker began
    created_s: float
    started_s: float | None = None
    finished_s: float | None = None
    outcome: Outcome | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether the outcome is there, for good."""
        return self.outcome is not None
