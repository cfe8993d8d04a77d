"""A video's frames in, positions for its timeline out; the template draws them as SVG: crisp at any size, and small."""

from dataclasses import dataclass

from scanner import wording
from scanner.contract import Label, Verdict

STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
"""Distances of time marks that people read at a glance."""
MOST_MARKS = 6
"""More marks than this collide on a phone, 360 px wide."""


@dataclass(frozen=True)
class Dot:
    """One frame: `x` and `y` in percent of the plot, `y` downwards; null `y` where no face was judged."""

    x: float
    y: float | None
    label: Label
    words: str


@dataclass(frozen=True)
class Timeline:
    """Everything of the plot in percent; `span` is (left, width) of the worst span."""

    dots: tuple[Dot, ...]
    marks: tuple[tuple[float, str], ...]
    span: tuple[float, float] | None
    title: str
    description: str


def timeline(verdict: Verdict) -> Timeline | None:
    """The plot of a video; null for a still or where frames carry no time."""
    times = [frame.time_s for frame in verdict.frames if frame.time_s is not None]
    if len(times) < 2 or len(times) < len(verdict.frames):
        return None
    end = max(verdict.media.duration_s or 0.0, *times) or 1.0
    span = verdict.worst_span
    dots = tuple(
        Dot(100 * t / end, None if f.score is None else 100 * (1 - f.score), wording.label_of(f.score, verdict), w)
        for f, t in zip(verdict.frames, times, strict=True)
        for w in [
            f"{wording.moment(verdict, t)}: "
            + ("no face judged" if f.score is None else f"score {wording.number(f.score)}")
        ]
    )
    return Timeline(
        dots=dots,
        marks=_marks(end),
        span=None if span is None else (100 * span.start_s / end, 100 * (span.end_s - span.start_s) / end),
        title=f"Score over time, {wording.counted(len(dots), 'frame')} in {wording.clock(end)}",
        description=_describe(verdict),
    )


def _marks(end_s: float) -> tuple[tuple[float, str], ...]:
    step = next((step for step in STEPS_S if end_s / step <= MOST_MARKS), STEPS_S[-1])
    return tuple((100 * t / end_s, wording.clock(t)) for t in range(0, int(end_s) + 1, step))


def _describe(verdict: Verdict) -> str:
    """What the plot shows, for who cannot see it."""
    scores = [frame.score for frame in verdict.frames if frame.score is not None]
    high = sum(score >= verdict.thresholds.manipulated for score in scores)  # their own, whatever the whole is called
    words = f"{high} of {wording.counted(len(scores), 'judged frame')} above the threshold for manipulated."
    span = verdict.worst_span
    if span is not None:
        start, end = wording.moment(verdict, span.start_s), wording.moment(verdict, span.end_s)
        words += f" Strongest from {start} to {end}, score {wording.number(span.score)}."
    return words
