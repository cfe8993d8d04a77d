"""Outcomes in, lines for a person at a terminal out: verdicts on stdout, progress on stderr.

One reason: what strangers' servers and file names say is shown, never obeyed (no escape sequence gets through), and
nothing moves or shines where there is no terminal: a pipe gets plain lines, NO_COLOR is honoured (by rich).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from scanner import wording
from scanner.contract import Failure, Label, Outcome, Verdict

STYLES: Final = {
    Label.MANIPULATED: "bold red",
    Label.INCONCLUSIVE: "bold yellow",
    Label.AUTHENTIC: "bold green",
    Label.NO_FACE: "bold",
}
DOING: Final = {
    "fetch": "fetching",
    "recall": "looking it up",
    "decode": "decoding",
    "score": "looking at the faces",
    "judge": "judging",
}
_NAME_CHARACTERS = 40  # of a source beside the progress bar


class _Console(Console):
    """Leaves a broken pipe to the command; rich would exit with 1, which means something else here."""

    def on_broken_pipe(self) -> None:
        raise  # noqa: PLE0704 - rich calls this while it handles the BrokenPipeError


class Terminal:
    """Says things to a person; `quiet` leaves one line per source and no progress."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._out = _Console(highlight=False, markup=False, emoji=False)
        self._err = _Console(highlight=False, markup=False, emoji=False, stderr=True)

    @contextlib.contextmanager
    def progress(self, source: str, place: str) -> Iterator[Callable[[str, float | None], None]]:
        """A line on stderr that says which stage runs; gone afterwards. `place`: "" or e.g. "2/5 "."""
        columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn()
        off = self._quiet or not self._err.is_terminal
        with Progress(*columns, console=self._err, transient=True, disable=off) as bar:
            name = shown(source)[-_NAME_CHARACTERS:]
            task = bar.add_task(f"{place}{name}", total=None)

            def update(stage: str, done: float | None) -> None:
                bar.update(task, description=f"{place}{name}: {DOING[stage]}", total=done and 1.0, completed=done or 0)

            yield update

    def show(self, outcome: Outcome) -> None:
        """One outcome, as it comes."""
        if outcome.verdict is None:
            assert outcome.failure is not None  # noqa: S101 - Outcome: exactly one of the two
            self._show_failure(outcome.source, outcome.failure)
        elif self._quiet:
            score = "-" if outcome.verdict.score is None else f"{outcome.verdict.score:.3f}"
            self._row(outcome.verdict.label, score, outcome.source)
        else:
            self._show_verdict(outcome.source, outcome.verdict)

    def say(self, words: str) -> None:
        """A remark beside the results."""
        if not self._quiet:
            self._err.print(Text(shown(words)), soft_wrap=True)

    def fail(self, code: str, words: str) -> None:
        """Why the whole command cannot go on."""
        self._err.print(Text.assemble((f"{code}: ", "bold red"), shown(words)), soft_wrap=True)

    def _row(self, *cells: str) -> None:
        """Tab-separated, for `cut` and `awk`; rich would turn tabs into spaces."""
        self._out.file.write("\t".join(shown(cell) for cell in cells) + "\n")
        self._out.file.flush()

    def _line(self, words: str | Text) -> None:
        """One line; wrapped only where somebody looks at a width."""
        self._out.print(words, soft_wrap=not self._out.is_terminal)

    def _show_failure(self, source: str, failure: Failure) -> None:
        later = " (may work later)" if failure.retryable else ""
        words = f"{failure.code}: {shown(failure.message)}{later}"
        if self._quiet:
            self._row("error", "-", source, words)
        else:
            self._line(Text.assemble(shown(source), ": could not be judged, ", (words, "red")))

    def _show_verdict(self, source: str, verdict: Verdict) -> None:
        score = "" if verdict.score is None else f"  {wording.number(verdict.score)}"
        headline = wording.HEADLINES[verdict.label]
        self._line(Text.assemble(shown(source), ": ", (f"{headline}{score}", STYLES[verdict.label])))
        self._indented(Text(verdict.reason))
        for warning in verdict.warnings:
            self._indented(Text.assemble(("! ", "yellow"), shown(warning)))
        self._indented(Text(_facts(verdict), "dim"))

    def _indented(self, words: Text) -> None:
        if self._out.is_terminal:
            self._out.print(Padding(words, (0, 0, 0, 2)))
        else:
            self._line(Text.assemble("  ", words))


def shown(text: str) -> str:
    r"""What a stranger wrote, with everything that is not printable made visible.

    >>> shown("a\x1b[2J")
    'a\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _facts(verdict: Verdict) -> str:
    media = verdict.media
    faces = wording.counted(wording.people(verdict), "face")
    length = "" if media.duration_s is None else f", {wording.clock(media.duration_s)}"
    frames = "" if len(verdict.frames) == 1 else f", {wording.counted(len(verdict.frames), 'frame')}"
    faces += f", {wording.counted(len(verdict.regions), 'inpainted part')}" if verdict.regions else ""
    total_s = sum(verdict.timings_s.values())
    return f"{media.format} {media.width}x{media.height}{length}{frames}, {faces}, {total_s:.1f} s"
