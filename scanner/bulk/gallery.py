"""A finished list in, one page out: how the scores lie, the surest forgeries with their evidence, what failed and why.

In: the journal, and the pictures drawn while the list ran. Out: `report.html` and the drawings beside it.
One reason: a million rows are read by nobody; somebody must see at a glance what is in them and where to look first.

Drawings are made when a verdict is fresh and its pixels are at hand, of the surest only: about `GALLERY` x ln(n)
drawings for n pictures in any order.
"""

import bisect
import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from PIL import Image

from scanner import wording
from scanner.bulk.journal import Journal, Shown, key_of
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
        self._folder, self._ranks = folder, sorted(shown.rank for shown in journal.shown())
        self._lock = threading.Lock()
        self.drawn: list[tuple[bytes, Shown]] = []
        folder.mkdir(parents=True, exist_ok=True)

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


def write_report(folder: Path, journal: Journal, plan: "Plan", gallery: Gallery | None = None) -> Path:
    """Write the page; out: its path. The drawings of earlier runs over the same list are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, shown in gallery.drawn if gallery else ():
        for surplus in journal.show(key, shown, GALLERY):
            (folder / surplus).unlink(missing_ok=True)
    tally = journal.tally()
    scores = journal.scores(BINS)
    labels = [(report.STATES[label], tally.get(label.value, 0), wording.HEADLINES[label]) for label in Label]
    failures = sorted(((code, n) for code, n in tally.items() if code not in set(Label)), key=lambda row: -row[1])
    page = report.template("scanner.bulk", "gallery.html.j2").render(
        source=plan.source,
        out=str(plan.out),
        rows=journal.count_rows(),
        labels=[row for row in labels if row[1]],
        scores=[(at / BINS, count, count / max(1, *scores)) for at, count in enumerate(scores)],
        gallery=journal.shown(),
        failures=failures,
        examples=journal.failures(FAILURES),
        number=wording.number,
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path
