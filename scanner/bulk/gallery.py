"""A finished list in, one page out: how the scores lie, the surest forgeries with their evidence, what failed and why.

In: the journal, and the pictures drawn while the list ran. Out: `report.html` and the drawings beside it.
One reason: a million rows are read by nobody; somebody must see at a glance what is in them and where to look first.

Drawings are made when a verdict is fresh and its pixels are at hand, of the surest only: about `GALLERY` x ln(n)
drawings for n pictures in any order.
"""

import bisect
import hashlib
import heapq
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from scanner import wording
from scanner.bulk.journal import Journal, Shown, key_of
from scanner.bulk.rows import OutputError
from scanner.contract import Label, Verdict
from scanner.report import overlay
from scanner.report import page as report

if TYPE_CHECKING:
    from scanner.bulk.plan import Plan
    from scanner.decoding.decode import Decoded

GALLERY: Final = 48
BINS: Final = 20
FAILURES: Final = 100
_SIDE_PX: Final = 640


class Gallery:
    """Draws the surest forgeries as they come; one for a run."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder, self._ranks = folder, sorted(shown.rank for shown in journal.shown().values())
        self._lock = threading.Lock()
        self.drawn: list[tuple[bytes, Shown]] = []
        _made(folder)

    def draw(self, verdict: Verdict, decoded: "Decoded", source: str) -> None:
        """Draw it when it is among the surest so far; blocks."""
        if verdict.score is None or verdict.label not in {Label.MANIPULATED, Label.INCONCLUSIVE}:
            return
        with self._lock:
            if len(self._ranks) >= GALLERY and verdict.score <= self._ranks[-GALLERY]:
                return
            bisect.insort(self._ranks, verdict.score)
        worst = max(range(len(verdict.frames)), key=lambda at: verdict.frames[at].score or 0.0)
        pixels = next((f.pixels for f in decoded.frames if f.index == verdict.frames[worst].index), None)
        if pixels is None:
            return
        marked = Image.fromarray(overlay.draw_overlay(pixels, verdict, worst))
        marked.thumbnail((_SIDE_PX, _SIDE_PX))
        name = f"{hashlib.sha256(source.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.jpg"
        marked.save(self._folder / name, quality=report.JPEG_QUALITY, subsampling=0)
        with self._lock:
            self.drawn.append((key_of(source), Shown(verdict.score, source, name)))


@dataclass(frozen=True)
class Surest:
    """One of the sources to look at first; `shown` is null where its pixels were never at hand."""

    row: int
    score: float
    state: str
    headline: str
    shown: Shown | None


@dataclass(frozen=True)
class Bin:
    """Sources whose scores lie from `low` up to the next bin's; `share` is of the fullest, `state` of its middle."""

    low: float
    count: int
    share: float
    state: str


@dataclass(frozen=True)
class Distribution:
    """Bins, the thresholds where they are known, and how many sources have a score."""

    bins: tuple[Bin, ...]
    authentic: float | None
    manipulated: float | None
    count: int


def write_report(folder: Path, journal: Journal, plan: "Plan", gallery: Gallery | None = None) -> Path:
    """Write the page; out: its path. The drawings of earlier runs over the same list are kept. Raises OutputError."""
    _made(folder)
    for key, shown in gallery.drawn if gallery else ():
        for surplus in journal.show(key, shown, GALLERY):
            (folder / surplus).unlink(missing_ok=True)
    tally, rows = journal.tally(), journal.count_rows()
    distribution, surest = _surveyed(journal, folder)
    labels = [(state, tally.get(label.value, 0), wording.HEADLINES[label]) for label, state in report.STATES.items()]
    failures = sorted(((code, n) for code, n in tally.items() if code not in set(Label)), key=lambda row: -row[1])
    page = report.template("scanner.bulk", "gallery.html.j2").render(
        source="standard input" if plan.source == "-" else plan.source,
        out=str(plan.out),
        rows=rows,
        labels=[row for row in labels if row[1]],
        failures=failures,
        failed=sum(count for _, count in failures),
        distribution=distribution,
        surest=surest,
        examples=journal.failures(FAILURES),
        number=wording.number,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
    path = folder / "report.html"
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"the report {path} cannot be written: {error.strerror}")


def _surveyed(journal: Journal, folder: Path) -> tuple[Distribution, list[Surest]]:
    """How the scores lie, and the highest of those that are no `authentic`."""
    counts, marked = [0] * BINS, (Label.MANIPULATED, Label.INCONCLUSIVE)
    found: list[tuple[float, bytes, Label]] = []
    for key, one in journal.scored():
        score = one.score or 0.0
        counts[min(int(score * BINS), BINS - 1)] += 1
        if one.label in marked:
            push = heapq.heappush if len(found) < GALLERY else heapq.heappushpop
            push(found, (score, key, Label(one.label)))
    rows = journal.first_rows([key for _, key, _ in found])
    drawn = {key: shown for key, shown in journal.shown().items() if (folder / shown.file).is_file()}
    surest = [
        Surest(rows[key], score, report.STATES[label], wording.HEADLINES[label], drawn.get(key))
        for score, key, label in sorted(found, reverse=True)
        if key in rows  # else the list has lost it
    ]
    authentic, manipulated = _thresholds(journal)
    bins = tuple(
        Bin(at / BINS, count, count / max(1, *counts), _state((at + 0.5) / BINS, authentic, manipulated))
        for at, count in enumerate(counts)
    )
    return Distribution(bins, authentic, manipulated, sum(counts)), surest


def _thresholds(journal: Journal) -> tuple[float, float] | tuple[None, None]:
    """Those of the model that judged, where it was in this process's reach."""
    words = (journal.fact("thresholds") or "").split()
    return (float(words[0]), float(words[1])) if len(words) == 2 else (None, None)


def _state(score: float, authentic: float | None, manipulated: float | None) -> str:
    if authentic is None or manipulated is None:
        return "any"
    return "manipulated" if score >= manipulated else "authentic" if score <= authentic else "inconclusive"
