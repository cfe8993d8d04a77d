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

from scanner.commands.exits import Exit, fail
from scanner.contract import Label
from scanner.errors import EngineError
from scanner.folders import UnwritableError, sweep_scratch
from scanner.formats import HEAD_BYTES, sniff
from scanner.settings import Settings

if TYPE_CHECKING:
    from scanner.report.page import Report
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
  5    the report cannot be written (disk full?): it has the sources until then
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

    settings, terminal, met = _settings(given.frames), Terminal(quiet=given.quiet), set[str]()
    sweep_scratch()  # what a scan that was killed has left
    try:
        with _reporting(given.report, terminal) as report:
            asyncio.run(_scan_all(given, settings, terminal, report, met))
    except EngineError as error:
        terminal.fail(error.code, str(error))
        return Exit.NO_ENGINE
    except UnwritableError as error:
        return fail(str(error), Exit.UNWRITABLE)
    return _exit_code(met, given.fail_on)


@contextlib.contextmanager
def _reporting(folder: Path | None, terminal: "Terminal") -> "Iterator[Report | None]":
    """A report of what was scanned, also when that was interrupted or there was no room for more."""
    if folder is None:
        yield None
        return
    from scanner.report.page import Report

    report = Report(folder)
    try:
        yield report
    finally:
        if not report.is_empty:
            terminal.say(f"report: {report.write()}")


def _settings(frames: int | None) -> Settings:
    """From the environment, with what the command line overrides; raises SettingsError."""
    environ = dict(os.environ)
    if frames is not None:
        environ["LAESCAN_MAX_FRAMES"] = str(frames)
    return Settings.from_env(environ)


async def _scan_all(
    given: argparse.Namespace, settings: Settings, terminal: "Terminal", report: "Report | None", met: set[str]
) -> None:
    """Scan one source after the other, show and draw each outcome as it comes, and note in `met` what it was."""
    from scanner.pipeline import Scanner
    from scanner.report.page import ReportItem

    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - we are in one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    sources = _expand(given.sources)
    with Scanner(settings) as scanner:
        for number, source in enumerate(sources, start=1):
            place = f"{number}/{len(sources)} " if len(sources) > 1 else ""
            with terminal.progress(source, place) as progress:
                result = await scanner.scan(source, progress=progress, keep_frames=report is not None)
            if given.json:
                print(msgspec.json.encode(result.outcome).decode(), flush=True)
            else:
                terminal.show(result.outcome)
            verdict = result.outcome.verdict
            met.add(verdict.label.value if verdict else "error")
            if report is not None:
                report.add(ReportItem(result.outcome, result.frames))


def _exit_code(met: set[str], fail_on: Sequence[str]) -> Exit:
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
