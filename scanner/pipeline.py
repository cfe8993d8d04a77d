"""A source in, an Outcome out: the one file that knows the order of the work.

    fetch -> decode (jailed) -> detect faces -> crop -> score -> judge

Videos and animations: every second frame first; the rest only when those do not agree strongly.
One reason: this is the edge where everything that can go wrong becomes a value. A failure that we expect is an Outcome
with its code; a bug is an Outcome with code `internal` and a trace in the log.
"""

import asyncio
import contextlib
import functools
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from scanner.contract import Failure, Media, Outcome, Verdict
from scanner.decode import Decoded, Frame, decode
from scanner.detector import Detector
from scanner.errors import Internal, RateLimited, ScanError
from scanner.faces import CROP_PX, Face, FaceDetector, Matrix, Pixels, Quality, align, judge_quality, link
from scanner.fetch import Fetched, fetch
from scanner.jail import Jail
from scanner.settings import Settings
from scanner.verdict import EARLY_FRAMES, FrameInfo, ScoredFace, agree_strongly, judge

log = logging.getLogger(__name__)

STAGES = ("fetch", "decode", "detect", "crop", "score", "judge")
"""In this order; the names in `timings_s` and in progress reports."""

Progress = Callable[[str, float | None], None]
"""Called with a stage and how much of it is done, 0..1, None = unknown; from any thread."""


@dataclass(frozen=True, eq=False)
class ScanResult:
    """An outcome and, when they were asked for, the frames that its verdict speaks of."""

    outcome: Outcome
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, eq=False)
class _Cut:
    """One face of one frame and where its crop came from."""

    face: Face
    quality: Quality
    crop_to_frame: Matrix  # (2, 3)


@dataclass(eq=False)
class _Judged:
    """One frame's faces with the model's answers, (n,) and (n, 16, 16)."""

    cuts: list[_Cut]
    raw: np.ndarray
    attention: np.ndarray


@dataclass
class _Stages:
    """Tells and times what is being done."""

    progress: Progress
    timings_s: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str, done: float | None = None) -> Iterator[None]:
        self.progress(name, done)
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.timings_s[name] = self.timings_s.get(name, 0.0) + time.perf_counter() - begun


class Scanner:
    """The jail, the face detector and the model, loaded once for any number of scans; a context manager.

    Entering raises BadWeights or NoJail. Scans may run concurrently; the model serves one at a time, in a thread of its
    own: two at once would fight for the same cores, and oneDNN compiles its kernels anew for every thread.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.jail = stack.enter_context(Jail(self.settings))
            self.detector = Detector.load(self.settings)
            self._faces = FaceDetector(self.detector.backend.device)
            self._model_thread = stack.enter_context(ThreadPoolExecutor(1, "laescan-model"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def scan(self, source: str, *, progress: Progress | None = None, keep_frames: bool = False) -> ScanResult:
        """Judge a URL, a path or `-`. Never raises for what is wrong with the source, nor for a bug: see Outcome.

        `keep_frames` holds the scored frames in memory for a report.
        """
        stages = _Stages(progress or (lambda _stage, _done: None))
        try:
            with tempfile.TemporaryDirectory(prefix="laescan-") as folder:
                verdict, frames = await self._scan(source, Path(folder), stages, keep_frames=keep_frames)
        except ScanError as error:
            return ScanResult(Outcome(source=_legible(source), failure=_failure(error)))
        except Exception as error:
            log.exception("a bug in the scan of %r", source)
            what = (
                f"a bug in laescan, not in your file ({type(error).__name__}: {error}); please report it with the log"
            )
            return ScanResult(Outcome(source=_legible(source), failure=_failure(Internal(what))))
        return ScanResult(Outcome(source=_legible(source), verdict=verdict), frames)

    def scan_blocking(self, source: str, *, progress: Progress | None = None, keep_frames: bool = False) -> ScanResult:
        """`scan`, where there is no event loop."""
        return asyncio.run(self.scan(source, progress=progress, keep_frames=keep_frames))

    async def _scan(
        self, source: str, folder: Path, stages: _Stages, *, keep_frames: bool
    ) -> tuple[Verdict, tuple[Frame, ...]]:
        def fetched_bytes(so_far: int, total: int | None) -> None:
            stages.progress("fetch", so_far / total if total else None)

        with stages.stage("fetch"):
            fetched = await fetch(source, folder=folder, settings=self.settings, progress=fetched_bytes)
        with stages.stage("decode"):
            decoded = await asyncio.to_thread(decode, fetched.path, jail=self.jail, settings=self.settings)
        judge_it = functools.partial(self._judge, fetched, decoded, stages, keep_frames=keep_frames)
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, judge_it)

    def _judge(
        self, fetched: Fetched, decoded: Decoded, stages: _Stages, *, keep_frames: bool
    ) -> tuple[Verdict, tuple[Frame, ...]]:
        """From frames to the verdict; blocks."""
        frames, faces = self._score_enough(decoded.frames, stages)
        warnings = decoded.warnings
        if len(frames) < len(decoded.frames):
            warnings += (f"{len(frames)} of {len(decoded.frames)} frames were scored; they agree.",)
        with stages.stage("judge", 1.0):
            verdict = judge(
                faces,
                [_info(frame) for frame in frames],
                media=_media(fetched, decoded),
                model=self.detector.info,
                calibration=self.detector.calibration,
                timings_s=stages.timings_s,
                warnings=warnings,
                min_face_px=self.settings.min_face_px,
            )
        return verdict, frames if keep_frames else ()

    def _score_enough(self, frames: tuple[Frame, ...], stages: _Stages) -> tuple[tuple[Frame, ...], list[ScoredFace]]:
        """Score every second frame and, unless those settle it, the others; out: the scored frames and their faces."""
        first = frames[::2]
        if len(first) < EARLY_FRAMES:
            return frames, _linked(frames, self._score(frames, stages, 0.0))
        judged = self._score(first, stages, 0.0)
        faces = _linked(first, judged)
        if agree_strongly(faces, frame_count=len(first), calibration=self.detector.calibration):
            return first, faces
        rest = self._score(frames[1::2], stages, 0.5)
        merged = [rest[at // 2] if at % 2 else judged[at // 2] for at in range(len(frames))]
        return frames, _linked(frames, merged)

    def _score(self, frames: Sequence[Frame], stages: _Stages, done: float) -> list[_Judged]:
        """Detect, crop and score the faces of some frames; `done`: the part of the frames that came before."""
        with stages.stage("detect", done):
            pixels = [frame.pixels for frame in frames]
            limits = {"min_face_px": self.settings.min_face_px, "max_faces": self.settings.max_faces}
            found = self._faces.detect(pixels, **limits)
        crops: list[Pixels] = []  # each (256, 256, 3)
        with stages.stage("crop", done):
            cuts = [[_cut(frame, face, crops) for face in faces] for frame, faces in zip(pixels, found, strict=True)]
        with stages.stage("score", done):
            scores = self.detector.score(np.stack(crops) if crops else np.zeros((0, CROP_PX, CROP_PX, 3), np.uint8))
        ends = np.cumsum([len(of_frame) for of_frame in cuts])[:-1]
        parts = zip(cuts, np.split(scores.raw, ends), np.split(scores.attention, ends), strict=True)
        return [_Judged(of_frame, raw, attention) for of_frame, raw, attention in parts]


def _cut(frame: Pixels, face: Face, crops: list[Pixels]) -> _Cut:
    """Cut a face out onto the end of `crops`, which live only until they are scored."""
    crop, crop_to_frame = align(frame, face)
    crops.append(crop)
    return _Cut(face, judge_quality(frame, face, crop), crop_to_frame)


def _linked(frames: Sequence[Frame], judged: Sequence[_Judged]) -> list[ScoredFace]:
    """All faces of all frames, each with its track."""
    tracks = link([[cut.face for cut in one.cuts] for one in judged], [frame.time_s for frame in frames])
    return [
        ScoredFace(cut.face, at, track, cut.quality, float(raw), attention, cut.crop_to_frame)
        for at, (one, of_frame) in enumerate(zip(judged, tracks, strict=True))
        for cut, track, raw, attention in zip(one.cuts, of_frame, one.raw, one.attention, strict=True)
    ]


def _info(frame: Frame) -> FrameInfo:
    height, width = frame.pixels.shape[:2]
    return FrameInfo(frame.index, frame.time_s, width, height)


def _media(fetched: Fetched, decoded: Decoded) -> Media:
    return Media(
        kind=decoded.kind,
        format=decoded.format,
        size_bytes=fetched.size_bytes,
        width=decoded.width,
        height=decoded.height,
        sha256=fetched.sha256,
        duration_s=decoded.duration_s,
        frame_count=decoded.frame_count,
    )


def _failure(error: ScanError) -> Failure:
    retry_after_s = error.retry_after_s if isinstance(error, RateLimited) else None
    message = _legible(str(error))
    return Failure(code=error.code, message=message, retryable=error.retryable, retry_after_s=retry_after_s)


def _legible(text: str) -> str:
    """A file name may hold bytes that are no text (PEP 383), and JSON could not carry them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
