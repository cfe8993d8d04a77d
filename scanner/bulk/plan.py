"""What is asked for in, what there is at the end out: a plan, its summary, and whether it is done already.

One reason: a list that is done must say so in a blink, so what finds that out loads nothing that scans or draws.
"""

import os
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from scanner.bulk.journal import Journal
from scanner.bulk.polite import Patience, Policy
from scanner.contract import Label
from scanner.settings import Settings

LABELS: Final = tuple(label.value for label in Label)


class ElsewhereError(RuntimeError):
    """Those who should scan elsewhere do not answer, or refuse; the words say who and why."""


@dataclass(frozen=True)
class Plan:
    """What somebody asks for on the command line."""

    source: str
    out: Path
    column: str | None = None
    form: str | None = None
    policy: Policy = field(default_factory=Policy)
    patience: Patience = field(default_factory=Patience)
    with_hash: bool = True
    report: Path | None = None
    retry_failed: tuple[str, ...] | None = None  # () = whatever failed
    rewrite: bool = False
    rescan: bool = False
    keep: bool = False
    follow_s: float | None = None  # keep looking for new rows, a feed so often
    queue: str | None = None  # URL of the Redis whose workers scan
    api: str | None = None  # URL of the service that scans
    token: str | None = None  # that it is shown

    @property
    def journal(self) -> Path:
        """The file beside the output."""
        return self.out.with_name(self.out.name + ".journal")


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What there is at the end, also as JSON."""

    rows: int
    rows_before: int
    rows_this_run: int
    counts: dict[str, int]
    seconds: float
    finished: bool
    out: str

    @property
    def failed(self) -> int:
        """Rows that could not be judged."""
        return sum(count for code, count in self.counts.items() if code not in LABELS)


def summary_of(plan: Plan, journal: Journal, *, seconds: float, new_rows: int, finished: bool) -> Summary:
    """Count what the output has."""
    rows = journal.count_rows()
    return Summary(
        rows=rows,
        rows_before=rows - new_rows,
        rows_this_run=new_rows,
        counts=journal.tally(),
        seconds=round(seconds, 2),
        finished=finished,
        out=str(plan.out),
    )


def finished(plan: Plan, settings: Settings, journal: Journal) -> Summary | None:
    """The summary, when this very list was done by this very model; nothing is loaded to find out."""
    done = journal.fact("finished")
    if not done or done != fingerprint(plan.source) or journal.fact("model_file") != model_file(settings):
        return None
    return summary_of(plan, journal, seconds=0.0, new_rows=0, finished=True)


def model_file(settings: Settings) -> str:
    """The checkpoint as it lies there."""
    path = settings.weights or str(resources.files("scanner").joinpath("weights", "face.safetensors"))
    try:
        status = os.stat(path)  # noqa: PTH116 - one call
    except OSError:
        return path + settings.judging()
    return f"{path} {status.st_size} {status.st_mtime_ns}{settings.judging()}"


def ready(plan: Plan, settings: Settings) -> Summary | None:
    """The summary of a list that is done, asked for once more: known without loading anything that scans."""
    wants = plan.retry_failed is not None or plan.rewrite or plan.rescan or plan.report or plan.follow_s is not None
    if wants or not plan.journal.exists() or not plan.out.exists():
        return None
    with Journal(plan.journal) as journal:
        return finished(plan, settings, journal)


def fingerprint(source: str) -> str | None:
    """The list as it lies there, so that one that did not change need not be read again; None when that is not sure."""
    path = Path(source)
    if source == "-" or not path.is_file():
        return None
    status = path.stat()
    return f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def counts(found: dict[str, int]) -> str:
    """Labels first, then errors, e.g. "9 manipulated, 1 gone"."""
    order = sorted(found, key=lambda name: (LABELS.index(name) if name in LABELS else len(LABELS), -found[name]))
    return ", ".join(f"{found[name]:,} {name}" for name in order) or "nothing yet"


def duration(seconds: float) -> str:
    """Two units at most, e.g. "3 h 05 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
