"""A source in, an Outcome out: the one file that knows the order of the work.

    fetch -> recall -> decode (jailed) -> recall -> score (find faces, cut them out, score them) -> judge -> remember

Recalling and remembering happen where a Memory is given; a whole picture is scored, too, by a model that does that.
Videos and animations: every second frame first; the rest only when those do not agree strongly.
One reason: this is the edge where everything that can go wrong becomes a value. A failure that we expect is an Outcome
with its code; a bug is an Outcome with code `internal` and a trace in the log.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from scanner import wording
from scanner.cache.urls import for_log
from scanner.cache.validators import NO_VALIDATORS, NotModified, Validators
from scanner.contract import Failure, Media, Outcome, Verdict
from scanner.decoding.decode import Decoded, Frame, decode
from scanner.decoding.jail import Jail
from scanner.decoding.room import Room
from scanner.detection.faces import link
from scanner.detection.model import Model, SeenFace
from scanner.detection.survey import Survey
from scanner.errors import Internal, NoRoom, RateLimited, ScanError
from scanner.fetching.fetch import Fetched, fetch
from scanner.fetching.web import Web
from scanner.folders import Scratch, is_full, scratch_folder
from scanner.memory import Memory
from scanner.settings import Settings
from scanner.verdict import EARLY_FRAMES, FrameInfo, ScoredFace, agree_strongly, judge

if TYPE_CHECKING:
    from scanner.detection.local_model import LocalModel

log = logging.getLogger(__name__)

STAGES = ("fetch", "recall", "decode", "score", "judge")
"""The names in `timings_s` and in progress reports; `recall` only with a memory, before and after `decode`."""

_NO_ROOM = "the disk of temporary files is full; it is tried again, or make room there (TMPDIR) and scan it again"

KeepFrames = bool | Literal["if changed"]
"""The latter for who has a report already: no frames, and no download, of a source that is as it was remembered."""

Progress = Callable[[str, float | None], None]
"""Called with a stage and how much of it is done, 0..1, None = unknown; from any thread."""


@dataclass(frozen=True, eq=False)
class ScanResult:
    """An outcome and, when they were asked for, the frames that its verdict speaks of."""

    outcome: Outcome
    frames: tuple[Frame, ...] = ()


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
    """The jail and the model, made ready once for any number of scans, also at once; a context manager.

    Without a `model` it loads its own; a given one stays the giver's to close. Entering raises BadWeights or NoJail.
    For many scans at once: `web` is the HTTP client, `scratch` the folder on disk and `room` the memory for pixels that
    they share.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        model: Model | None = None,
        memory: Memory | None = None,
        web: Web | None = None,
        room: Room | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        self.settings, self.web, self.room, self.scratch = settings, web, room, scratch
        self._given, self._memory = model, memory
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self.jail = stack.enter_context(Jail(self.settings))
            self.model: Model = self._given or stack.enter_context(_local_model(self.settings))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    async def scan(
        self,
        source: str,
        *,
        progress: Progress | None = None,
        keep_frames: KeepFrames = False,
        urgent: bool = True,
        rescan: bool = False,
    ) -> ScanResult:
        """Judge a URL, a path or `-`. Never raises for what is wrong with the source, nor for a bug: see Outcome.

        `keep_frames` holds the frames of the verdict in memory for a report.
        `urgent` goes before what is not at a shared model, `rescan` judges anew what is remembered.
        """
        stages = _Stages(progress or (lambda _stage, _done: None))
        try:
            with self.scratch.folder() if self.scratch else scratch_folder() as folder:
                work = _Work(
                    scanner=self,
                    stages=stages,
                    memory=self._memory,
                    keep_frames=keep_frames,
                    urgent=urgent,
                    rescan=rescan,
                )
                verdict, frames = await work.scan(source, folder)
        except ScanError as error:
            return ScanResult(Outcome(source=_legible(source), failure=_failure(error)))
        except Exception as error:
            if is_full(error):
                return ScanResult(Outcome(source=_legible(source), failure=_failure(NoRoom(_NO_ROOM))))
            log.exception("a bug in the scan of %r", for_log(source))
            what = (
                f"a bug in laescan, not in your file ({type(error).__name__}: {error}); please report it with the log"
            )
            return ScanResult(Outcome(source=_legible(source), failure=_failure(Internal(what))))
        return ScanResult(Outcome(source=_legible(source), verdict=verdict), frames)

    def scan_blocking(self, source: str, *, progress: Progress | None = None, keep_frames: bool = False) -> ScanResult:
        """`scan`, where there is no event loop."""
        return asyncio.run(self.scan(source, progress=progress, keep_frames=keep_frames))


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One scan."""

    scanner: Scanner
    stages: _Stages
    memory: Memory | None
    keep_frames: KeepFrames
    urgent: bool
    rescan: bool

    async def scan(self, source: str, folder: Path) -> tuple[Verdict, tuple[Frame, ...]]:
        """From the source to the verdict and, when they are to be kept, its frames."""
        stages, settings = self.stages, self.scanner.settings

        def fetched_bytes(so_far: int, total: int | None) -> None:
            stages.progress("fetch", so_far / total if total else None)

        expected = None if self.keep_frames is True else await self._expected(source)
        validators, unchanged = expected or (NO_VALIDATORS, None)
        try:
            with stages.stage("fetch"):
                fetched = await fetch(
                    source,
                    folder=folder,
                    settings=settings,
                    progress=fetched_bytes,
                    known=validators,
                    web=self.scanner.web,
                )
        except NotModified:
            if unchanged is None or self.memory is None:
                raise
            await self.memory.confirm(source)
            return unchanged, ()
        known = await self._recalled(fetched)
        if known and not self.keep_frames:
            return known, ()
        async with contextlib.AsyncExitStack() as stack:
            return await self._scan_decoded(fetched, await self._decode(fetched, stack), known)

    async def _decode(self, fetched: Fetched, stack: contextlib.AsyncExitStack) -> Decoded:
        """The pixels, which fill much more memory than the bytes; their room is theirs until the stack's end."""
        settings, room = self.scanner.settings, self.scanner.room
        async with room.decoding() if room else contextlib.nullcontext():
            with self.stages.stage("decode"):
                decoded = await asyncio.to_thread(decode, fetched.path, jail=self.scanner.jail, settings=settings)
            if room:
                await stack.enter_async_context(room.holding(sum(frame.pixels.nbytes for frame in decoded.frames)))
        return decoded

    async def _scan_decoded(
        self, fetched: Fetched, decoded: Decoded, known: Verdict | None
    ) -> tuple[Verdict, tuple[Frame, ...]]:
        """From the pixels on."""
        stages = self.stages
        known = known or await self._recalled(fetched, decoded)
        if known:
            return known, _frames_of(known, decoded) if self.keep_frames else ()
        frames, faces = await self._score_enough(decoded.frames)
        survey = await self._survey(decoded)
        with stages.stage("judge", 1.0):
            verdict = await asyncio.to_thread(self._judge, fetched, decoded, frames, faces, survey)
        if self.memory:
            await self.memory.remember(fetched, decoded, verdict)
        return verdict, frames if self.keep_frames else ()

    async def _expected(self, source: str) -> tuple[Validators, Verdict] | None:
        if self.memory is None or self.rescan:
            return None
        return await self.memory.expected(source)

    async def _recalled(self, fetched: Fetched, decoded: Decoded | None = None) -> Verdict | None:
        """What the memory says, when there is one and it is asked."""
        if self.memory is None or self.rescan:
            return None
        with self.stages.stage("recall"):
            if decoded is None:
                return await self.memory.recall(fetched)
            return await self.memory.recall_decoded(fetched, decoded)

    async def _score_enough(self, frames: tuple[Frame, ...]) -> tuple[tuple[Frame, ...], list[ScoredFace]]:
        """Score every second frame and, unless those settle it, the others; out: the scored frames and their faces."""
        first = frames[::2]
        if len(first) < EARLY_FRAMES:
            return frames, _linked(frames, await self._score(frames, 0.0))
        seen = await self._score(first, 0.0)
        faces = _linked(first, seen)
        if agree_strongly(faces, frame_count=len(first), calibration=self.scanner.model.calibration):
            return first, faces
        rest = await self._score(frames[1::2], 0.5)
        merged = [rest[at // 2] if at % 2 else seen[at // 2] for at in range(len(frames))]
        return frames, _linked(frames, merged)

    async def _score(self, frames: Sequence[Frame], done: float) -> list[list[SeenFace]]:
        """The faces of some frames, scored; `done`: the part of the frames that came before."""
        with self.stages.stage("score", done):
            return await self.scanner.model.look([frame.pixels for frame in frames], urgent=self.urgent)

    async def _survey(self, decoded: Decoded) -> Survey | None:
        """What a picture looks like beside its faces, by a model that looks; never of a video."""
        if decoded.kind != "image":
            return None
        with self.stages.stage("score", 0.5):
            return await self.scanner.model.survey(decoded.frames[0].pixels, urgent=self.urgent)

    def _judge(
        self,
        fetched: Fetched,
        decoded: Decoded,
        frames: tuple[Frame, ...],
        faces: list[ScoredFace],
        survey: Survey | None,
    ) -> Verdict:
        warnings = decoded.warnings
        if len(frames) < len(decoded.frames):
            warnings += (f"{len(frames)} of {len(decoded.frames)} frames were scored; they agree.",)
        most = max(Counter(face.frame for face in faces).values(), default=0)
        warnings += wording.crowded(most, self.scanner.settings.max_faces)
        return judge(
            faces,
            [_info(frame) for frame in frames],
            media=media_of(fetched, decoded),
            model=self.scanner.model.info,
            calibration=self.scanner.model.calibration,
            timings_s=self.stages.timings_s,
            survey=survey,
            warnings=warnings,
            min_face_px=self.scanner.settings.min_face_px,
        )


def _local_model(settings: Settings) -> "LocalModel":
    """Load the model into this process."""
    from scanner.detection.local_model import LocalModel  # noqa: PLC0415 - loads torch, which a work horse must never do

    return LocalModel.load(settings)


def _linked(frames: Sequence[Frame], seen: Sequence[Sequence[SeenFace]]) -> list[ScoredFace]:
    """All faces of all frames, each with its track."""
    tracks = link([[one.face for one in of_frame] for of_frame in seen], [frame.time_s for frame in frames])
    return [
        ScoredFace(one.face, at, track, one.quality, one.raw, one.attention, one.crop_to_frame)
        for at, (of_frame, numbers) in enumerate(zip(seen, tracks, strict=True))
        for one, track in zip(of_frame, numbers, strict=True)
    ]


def _frames_of(verdict: Verdict, decoded: Decoded) -> tuple[Frame, ...]:
    """The frames that a recalled verdict speaks of; those of a near copy in another size it does not speak of."""
    spoken_of = {(frame.index, frame.width, frame.height) for frame in verdict.frames}
    return tuple(f for f in decoded.frames if (f.index, *f.pixels.shape[1::-1]) in spoken_of)


def _info(frame: Frame) -> FrameInfo:
    height, width = frame.pixels.shape[:2]
    return FrameInfo(frame.index, frame.time_s, width, height)


def media_of(fetched: Fetched, decoded: Decoded) -> Media:
    """What a verdict says of the medium that it judges."""
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
