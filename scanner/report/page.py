"""Outcomes and their frames in, one HTML file out that shows why: no script, no outside asset, nothing trusted.

What was scanned came from strangers: everything is escaped by Jinja2, a source is text and never a link, and a
Content-Security-Policy forbids the page to load or run anything.

Each outcome is drawn, written and let go of as it comes, so a report of thousands takes the memory of one.
"""

import base64
import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

import jinja2
import numpy as np
import numpy.typing as npt
from PIL import Image

from scanner import wording
from scanner.contract import FaceEvidence, Label, Outcome, Verdict
from scanner.folders import UnwritableError
from scanner.report import overlay, palette
from scanner.report.timeline import Timeline, timeline

if TYPE_CHECKING:
    from scanner.decoding.decode import Frame

MOST_FRAMES = 4
"""Frames of one video shown large: the worst ones, in time order."""
MOST_FACES = 12
"""Faces shown as crops: one per person, the worst ones."""
MOST_PARTS = 6
"""Inpainted parts shown as crops: the surest ones."""
JPEG_QUALITY = 86
STATES: Final = {
    Label.MANIPULATED: "manipulated",
    Label.INCONCLUSIVE: "inconclusive",
    Label.AUTHENTIC: "authentic",
    Label.NO_FACE: "noface",
}
COUNTED: Final = {
    "manipulated": "with signs of manipulation",
    "inconclusive": "inconclusive",
    "authentic": "without a sign of manipulation",
    "noface": "without a face",
    "failed": "could not be judged",
}
_SAME: Final = {"url": "address, which was not asked again", "sha256": "bytes", "pixels": "pixels"}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ReportItem:
    """One outcome with the frames it was judged on; `frames` may be empty (a remembered verdict, a failure)."""

    outcome: Outcome
    frames: "tuple[Frame, ...]" = ()


@dataclass(frozen=True)
class Shot:
    """One frame as data: URIs; `marked` is null where there is nothing to draw."""

    plain: str
    marked: str | None
    width: int
    height: int
    words: str


@dataclass(frozen=True)
class Portrait:
    """One person by the worst face: two crops as data: URIs and what is said of it."""

    plain: str
    marked: str | None
    name: str
    state: str
    words: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One part of the whole picture that looks inpainted, with what is around it, as a data: URI."""

    picture: str
    width: int
    height: int
    words: str


@dataclass(frozen=True)
class Card:
    """All that the template says of one source."""

    number: int
    source: str
    state: str
    headline: str
    outcome: Outcome
    limit: float = 1.0  # of scores that count as manipulated: of faces, or of regions where they decide
    shots: tuple[Shot, ...] = ()
    portraits: tuple[Portrait, ...] = ()
    more_people: int = 0
    parts: tuple[Part, ...] = ()
    timeline: Timeline | None = None
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Line:
    """What stands in the summary of one source."""

    number: int
    source: str
    state: str
    headline: str
    score: float | None
    has_parts: bool


class Report:
    """`add` each outcome as it comes, then `write`; both raise UnwritableError.

    Beside `report.html`, which is self-contained, lie the overlays for sharing (`01-overlay.jpg`, `02-frame-007.jpg`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lines = folder, list[Line]()
        self._article = template("scanner.report", "card.html.j2")
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return not self._lines

    def add(self, item: ReportItem) -> None:
        """Draw one outcome; of one for which there is no room nothing is left."""
        number = len(self._lines) + 1
        with self._writing():
            try:
                card = _card(number, item, self._folder)
                self._part(number).write_text(self._article.render(card=card, number=wording.number), encoding="utf-8")
            except OSError:
                for mine in (f".{number:02}.part", f"{number:02}-overlay.jpg", f"{number:02}-frame-*.jpg"):
                    for path in self._folder.glob(mine):
                        with contextlib.suppress(OSError):
                            path.unlink()
                raise
        verdict = item.outcome.verdict
        score = None if verdict is None else verdict.score
        self._lines.append(Line(number, card.source, card.state, card.headline, score, bool(card.parts)))

    def write(self) -> Path:
        """Write the page of all that was added; out: its path."""
        counts = [(state, sum(line.state == state for line in self._lines), words) for state, words in COUNTED.items()]
        pieces = template("scanner.report", "page.html.j2").generate(
            lines=self._lines,
            articles=self._articles(),
            counts=[row for row in counts if row[1]],
            made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            stops=palette.stops(),
            number=wording.number,
        )
        path = self._folder / "report.html"
        with self._writing(), path.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        return path

    def _part(self, number: int) -> Path:
        return self._folder / f".{number:02}.part"

    def _articles(self) -> Iterator[str]:
        """What was rendered of each, escaped; gone as soon as it is in the page, so that one disk has room for both."""
        for line in self._lines:
            path = self._part(line.number)
            yield path.read_text(encoding="utf-8").strip()
            path.unlink()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"the report in {self._folder} cannot be written: {error.strerror or error}"
            raise UnwritableError(msg) from error


def write_report(items: Sequence[ReportItem], folder: Path) -> Path:
    """Write the report of some outcomes, as `Report` does; answers the page's path. The folder is made when missing."""
    report = Report(folder)
    for item in items:
        report.add(item)
    return report.write()


def template(package: str, name: str) -> jinja2.Template:
    """A page of ours; whatever is put into it is escaped. What pages share lies beside this file."""

    def shared(part: str) -> str:
        return resources.files("scanner.report").joinpath(part).read_text("utf-8")

    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FunctionLoader(shared),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.from_string(resources.files(package).joinpath(name).read_text("utf-8"))


def _card(number: int, item: ReportItem, folder: Path) -> Card:
    outcome, verdict = item.outcome, item.outcome.verdict
    source = "standard input" if outcome.source == "-" else outcome.source
    if verdict is None:
        return Card(number, source, "failed", "Could not be judged", outcome)
    portraits = _portraits(item, verdict)
    return Card(
        number=number,
        source=source,
        state=STATES[verdict.label],
        headline=wording.HEADLINES[verdict.label],
        outcome=outcome,
        limit=wording.deciding_limit(verdict),
        shots=tuple(_shots(number, item, verdict, folder)),
        portraits=portraits[:MOST_FACES],
        more_people=max(len(portraits) - MOST_FACES, 0),
        parts=_parts(item, verdict),
        timeline=timeline(verdict),
        facts=_facts(verdict),
    )


def _frame_of(item: ReportItem, position: int, verdict: Verdict) -> Pixels | None:
    """The pixels behind `verdict.frames[position]`; null when they were not kept."""
    wanted = verdict.frames[position].index
    return next((frame.pixels for frame in item.frames if frame.index == wanted), None)


def _shots(number: int, item: ReportItem, verdict: Verdict, folder: Path) -> list[Shot]:
    """The worst frames, drawn, written beside the report, and as data: URIs."""
    order = sorted(range(len(verdict.frames)), key=lambda i: -(verdict.frames[i].score or 0.0))
    shots = []
    for position in sorted(order[:MOST_FRAMES]):
        pixels, frame = _frame_of(item, position, verdict), verdict.frames[position]
        if pixels is None:
            continue
        marked = overlay.draw_overlay(pixels, verdict, position)
        name = "overlay" if verdict.media.kind == "image" else f"frame-{position + 1:03}"
        data = _jpeg(marked)
        (folder / f"{number:02}-{name}.jpg").write_bytes(data)
        faces = [face for face in verdict.faces if face.frame == position]
        score = "no face judged" if frame.score is None else f"score {wording.number(frame.score)}"
        shots.append(
            Shot(
                plain=_uri(_jpeg(np.asarray(overlay.fit(pixels)))),
                marked=_uri(data) if faces or verdict.regions else None,
                width=marked.shape[1],
                height=marked.shape[0],
                words=score if frame.time_s is None else f"{wording.moment(verdict, frame.time_s)}, {score}",
            )
        )
    return shots


def _portraits(item: ReportItem, verdict: Verdict) -> tuple[Portrait, ...]:
    """One per track, by its worst face, worst first; those that were not judged come last."""
    worst: dict[int, FaceEvidence] = {}
    for face in verdict.faces:
        if face.track not in worst or _rank(face) > _rank(worst[face.track]):
            worst[face.track] = face
    shown = []
    for face in sorted(worst.values(), key=_rank, reverse=True):
        pixels = _frame_of(item, face.frame, verdict)
        if pixels is not None:
            shown.append(_portrait(pixels, face, verdict))
    return tuple(shown)


def _rank(face: FaceEvidence) -> tuple[float, float, int]:
    return -1.0 if face.score is None else face.score, face.quality, -face.track


def _portrait(pixels: Pixels, face: FaceEvidence, verdict: Verdict) -> Portrait:
    plain, marked = overlay.draw_crop(pixels, face, verdict)
    label = wording.label_of(face.score, verdict)
    hot = label is not Label.AUTHENTIC and face.attention is not None
    time_s = verdict.frames[face.frame].time_s
    words = "not judged" if face.score is None else f"{overlay.CHIP_WORDS[label]}, score {wording.number(face.score)}"
    return Portrait(
        plain=_uri(_jpeg(plain)),
        marked=_uri(_jpeg(marked)) if hot else None,
        name=f"Face {face.track + 1}" + ("" if time_s is None else f" at {wording.moment(verdict, time_s)}"),
        state="noface" if face.score is None else STATES[label],
        words=words,
        warnings=face.warnings,
    )


def _parts(item: ReportItem, verdict: Verdict) -> tuple[Part, ...]:
    """The surest regions, cut out with what is around them."""
    pixels = _frame_of(item, 0, verdict) if verdict.regions else None
    if pixels is None:
        return ()
    shown = []
    for number, region in enumerate(verdict.regions[:MOST_PARTS], start=1):
        picture = overlay.draw_region(pixels, region)
        x0, y0, x1, y1 = (round(side) for side in region.box)
        words = f"score {wording.number(region.score)}, {x1 - x0} × {y1 - y0} px {wording.place(region, verdict.media)}"
        shown.append(Part(_uri(_jpeg(picture)), picture.shape[1], picture.shape[0], f"Part {number}: {words}"))
    return tuple(shown)


def _facts(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    media, model, cache = verdict.media, verdict.model, verdict.cache
    facts = [
        ("Format", f"{media.format}, {media.kind}"),
        ("Size", f"{media.width} × {media.height} px, {_bytes(media.size_bytes)}"),
        ("SHA-256", media.sha256),
    ]
    if media.duration_s is not None:
        facts.insert(2, ("Duration", f"{wording.clock(media.duration_s)}, {len(verdict.frames)} frames looked at"))
    low, high = verdict.thresholds.authentic, verdict.thresholds.manipulated
    if verdict.region_threshold is not None:
        whole = f"looked at for inpainted parts, too; a part of {verdict.region_threshold:.2f} or more counts"
        facts.append(("Whole picture", whole))
    facts += [
        ("Model", f"{model.model_id}, {model.backend}, {model.precision}"),
        ("Label rule", f"{high:.2f} or more: manipulated; {low:.2f} or less: authentic; between: inconclusive"),
        ("Time", ", ".join(f"{stage} {_duration(t)}" for stage, t in verdict.timings_s.items()) or "not measured"),
    ]
    if cache.kind != "miss":
        age = "" if cache.age_s is None else f", {wording.clock(cache.age_s)} old"
        near = "" if cache.distance is None else f", {cache.distance} bits apart"
        same = f"by its {_SAME[cache.by]}" if cache.by else f"{cache.kind} match"
        facts.append(("Remembered", f"{same}{near}{age}"))
    return tuple(facts)


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _jpeg(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    # no chroma subsampling: it would smear the thin coloured lines; no `optimize`: Pillow then has room for a byte a
    # pixel, and noise takes more ("broken data stream")
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
