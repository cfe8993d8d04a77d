"""`laescan scan`: its arguments, its words and its exit codes.

In: files, folders, URLs or stdin. Out: a verdict for each, for a person or as JSON, and one report of all.
"""

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scanner.commands.exits import Exit
from scanner.contract import Label, Outcome
from scanner.errors import EngineError
from scanner.folders import scratch_folder, sweep_scratch
from scanner.formats import HEAD_BYTES, sniff
from scanner.settings import Settings

if TYPE_CHECKING:
    from scanner.decoding.decode import Frame
    from scanner.report.page import ReportItem
    from scanner.terminal import Terminal

FAIL_ON = (Label.MANIPULATED.value, Label.INCONCLUSIVE.value, "error")
EPILOG = """\
examples:
  laescan scan photo.jpg
  laescan scan https://example.org/news/clip.mp4 --report report/
  laescan scan inbox/ --json | jq -r 'select(.verdict.label == "manipulated").source'
  curl -s https://example.org/a.jpg | laescan scan -
  laescan scan upload.jpg --quiet --fail-on manipulated --fail-on error || echo "hold it back"

exit codes:
  0    every source was judged
  1    something that --fail-on names was met
  2    the command or a setting is wrong
  3    some source could not be judged; its line tells the code and what to do
  4    nothing can be judged here (no weights, no jail): `laescan doctor` tells why
  130  interrupted
  143  terminated

A score is P(manipulated), 0..1. It is evidence, not proof. A source that could not be judged has none.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its arguments."""
    scan = commands.add_parser(
        "scan",
        help="judge pictures and videos",
        description="Judge pictures and videos: files, folders, URLs of media or of pages that show one, or - (stdin).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scan.add_argument("sources", nargs="+", metavar="SOURCE", help="a file, a folder, an http(s) URL, or -")
    scan.add_argument("--json", action="store_true", help="one JSON object per source and line on stdout")
    scan.add_argument("--report", type=Path, metavar="DIR", help="write report.html and the overlays into DIR")
    scan.add_argument(
        "--fail-on", action="append", default=[], choices=FAIL_ON, help="exit with 1 when met; may be repeated"
    )
    scan.add_argument("--frames", type=int, metavar="N", help="frames scored per video, 1 to 512 (default: 16)")
    scan.add_argument("-q", "--quiet", action="store_true", help="no progress; one line per source: label, score, name")
    scan.set_defaults(run=run)


def run(given: argparse.Namespace) -> Exit:
    """Scan all, show each, report; out: the exit code. Raises SettingsError."""
    from scanner.terminal import Terminal

    settings, terminal = _settings(given.frames), Terminal(quiet=given.quiet)
    sweep_scratch()  # what a scan that was killed has left
    with scratch_folder() as spool:
        try:
            items = asyncio.run(_scan_all(given, settings, terminal, spool))
        except EngineError as error:
            terminal.fail(error.code, str(error))
            return Exit.NO_ENGINE
        if given.report:
            from scanner.report.page import write_report

            terminal.say(f"report: {write_report(items, given.report)}")
    return _exit_code([item.outcome for item in items], given.fail_on)


def _settings(frames: int | None) -> Settings:
    """From the environment, with what the command line overrides; raises SettingsError."""
    environ = dict(os.environ)
    if frames is not None:
        environ["LAESCAN_MAX_FRAMES"] = str(frames)
    return Settings.from_env(environ)


async def _scan_all(
    given: argparse.Namespace, settings: Settings, terminal: "Terminal", spool: Path
) -> "list[ReportItem]":
    """Scan one source after the other and show each outcome as it comes."""
    from scanner.pipeline import Scanner
    from scanner.report.page import ReportItem

    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    items: list[ReportItem] = []
    sources = _expand(given.sources)
    with Scanner(settings) as scanner:
        for number, source in enumerate(sources, start=1):
            place = f"{number}/{len(sources)} " if len(sources) > 1 else ""
            with terminal.progress(source, place) as progress:
                result = await scanner.scan(source, progress=progress, keep_frames=given.report is not None)
            if given.json:
                print(msgspec.json.encode(result.outcome).decode(), flush=True)
            else:
                terminal.show(result.outcome)
            items.append(ReportItem(result.outcome, tuple(_spooled(result.frames, spool, number))))
    return items


def _spooled(frames: "Sequence[Frame]", spool: Path, number: int) -> "Iterator[Frame]":
    """The same frames on disk: 100 sources with 16 large frames each would not fit into memory until the report."""
    import numpy as np

    from scanner.decoding.decode import Frame

    for frame in frames:
        path = spool / f"{number}-{frame.index}.npy"
        np.save(path, frame.pixels)
        yield Frame(np.load(path, mmap_mode="r"), frame.index, frame.time_s)


def _exit_code(outcomes: Sequence[Outcome], fail_on: Sequence[str]) -> Exit:
    met = {outcome.verdict.label.value if outcome.verdict else "error" for outcome in outcomes}
    if met & set(fail_on):
        return Exit.FAIL_ON
    return Exit.SOME_FAILED if "error" in met else Exit.OK


def _expand(sources: Sequence[str]) -> list[str]:
    """A folder becomes every file below it that looks like media; one without any stays, to be told about."""
    found: list[str] = []
    for source in sources:
        inside = sorted(str(path) for path in Path(source).rglob("*") if _is_media(path)) if _is_folder(source) else []
        found += inside or [source]
    return found


def _is_folder(source: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name too long for a path, or with a NUL
        return Path(source).is_dir()
    return False


def _is_media(path: Path) -> bool:
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return sniff(file.read(HEAD_BYTES)) is not None
    return False
