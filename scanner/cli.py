"""`laescan`: arguments in, words for a person or JSON for a program and an exit code out.

One reason: this is the only file that talks to a terminal. What is heavy is imported when a command needs it.
argparse, not click: two commands with a dozen options need no dependency, and its usage errors exit with 2 as ours do.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scanner import training_cli
from scanner.bulk import cli as bulk_cli
from scanner.contract import Label, Outcome
from scanner.errors import EngineError
from scanner.folders import scratch_folder, sweep_scratch
from scanner.formats import HEAD_BYTES, sniff
from scanner.service import serve
from scanner.settings import Settings, SettingsError

if TYPE_CHECKING:
    from scanner.decoding.decode import Frame
    from scanner.report.page import ReportItem
    from scanner.terminal import Terminal


class Exit(IntEnum):
    """What a shell script sees."""

    OK = 0
    FAIL_ON = 1
    USAGE = 2
    SOME_FAILED = 3
    NO_ENGINE = 4
    INTERRUPTED = 130
    TERMINATED = 143


FAIL_ON = (Label.MANIPULATED.value, Label.INCONCLUSIVE.value, "error")

SCAN_EPILOG = """\
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

DOCTOR_EPILOG = """\
exit codes:
  0  everything that a scan needs is here and holds
  1  something is not; its line tells what to do
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `laescan` command; out: the exit code."""
    # Before torch is imported: waiting threads that spin collapse to a twentieth when anything else uses the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    given = _parser().parse_args(arguments)
    try:
        if given.command == "annotate":
            return _annotate(given)
        if given.command in {"train", "evaluate"}:
            return _learn(given)
        if given.command == "token":
            return _token(given)
        if given.command == "engine":
            return _engine(given)
        if given.command in {"serve", "worker", "bulk", "bulk-worker"}:
            return (bulk_cli.run_command if given.command.startswith("bulk") else serve.run)(given)
        return int(_scan(given) if given.command == "scan" else _doctor(json=given.json))
    except SettingsError as error:
        print(f"laescan: {error}", file=sys.stderr)
        return Exit.USAGE
    except KeyboardInterrupt:
        print("laescan: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except asyncio.CancelledError:
        return Exit.TERMINATED
    except BrokenPipeError:  # e.g. `| head`: nobody reads on; the interpreter must not trip over it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="laescan",
        description="Is a face in this picture or video forged? A verdict with the evidence, on your own machine.",
        epilog="`laescan COMMAND --help` tells more. Settings are LAESCAN_* variables; `laescan doctor` lists them.",
    )
    parser.add_argument("--version", action="version", version=f"laescan {metadata.version('laescan')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    scan = commands.add_parser(
        "scan",
        help="judge pictures and videos",
        description="Judge pictures and videos: files, folders, URLs of media or of pages that show one, or - (stdin).",
        epilog=SCAN_EPILOG,
        formatter_class=raw,
    )
    scan.add_argument("sources", nargs="+", metavar="SOURCE", help="a file, a folder, an http(s) URL, or -")
    scan.add_argument("--json", action="store_true", help="one JSON object per source and line on stdout")
    scan.add_argument("--report", type=Path, metavar="DIR", help="write report.html and the overlays into DIR")
    scan.add_argument(
        "--fail-on", action="append", default=[], choices=FAIL_ON, help="exit with 1 when met; may be repeated"
    )
    scan.add_argument("--frames", type=int, metavar="N", help="frames scored per video, 1 to 512 (default: 16)")
    scan.add_argument("-q", "--quiet", action="store_true", help="no progress; one line per source: label, score, name")
    doctor = commands.add_parser(
        "doctor",
        help="tell whether everything that a scan needs is here and holds",
        description="Try everything that a scan needs: weights, backend, jail, egress check. List the settings.",
        epilog=DOCTOR_EPILOG,
        formatter_class=raw,
    )
    doctor.add_argument("--json", action="store_true", help="the same as one JSON object")
    annotate = commands.add_parser(
        "annotate",
        help="draw masks on the candidates that training selected",
        description="Open a page on this machine, one picture after the other, to mark what was forged. Ctrl+C ends.",
        epilog="Masks are saved as you draw: FOLDER/masks/NAME.png, 8-bit, 255 = forged; training reads them there.",
    )
    annotate.add_argument("folder", type=Path, metavar="FOLDER", help="with a candidates.json, as training writes it")
    annotate.add_argument("--port", type=int, default=0, metavar="N", help="on 127.0.0.1 (default: any that is free)")
    annotate.add_argument("--no-browser", action="store_true", help="only print the address")
    serve.add_commands(commands)
    _add_engine(commands)
    training_cli.add_commands(commands)
    bulk_cli.add_command(commands)
    _add_token(commands)
    return parser


def _add_token(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    token = commands.add_parser("token", help="make, list and revoke tokens for the API")
    actions = token.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="print a new token; it is never shown again")
    create.add_argument("--scope", required=True, choices=("lookup", "submit", "bulk", "admin"), help="what it may do")
    create.add_argument("--tenant", default="local", metavar="NAME", help="whose scans it sees (default: local)")
    create.add_argument("--expires", metavar="TIME", help="e.g. 12h, 90d, 4w (default: never)")
    create.add_argument("--note", default="", metavar="TEXT", help="for the list")
    actions.add_parser("list", help="ids, scopes, tenants and whether they are valid")
    revoke = actions.add_parser("revoke", help="refuse a token from now on")
    revoke.add_argument("id", metavar="ID", help="the 12 characters after lae_")


def _add_engine(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    engine = commands.add_parser(
        "engine",
        help="hold the model for all workers of this machine",
        description="Load the model once and judge for every worker of this machine, in shared batches. Ctrl+C drains.",
        epilog="CUDA_VISIBLE_DEVICES picks the GPU; for a second one start another engine on another socket. "
        "Exit codes: 0 drained, 4 there is one already, or no weights, or (with --status) none.",
    )
    engine.add_argument("--socket", type=Path, metavar="PATH", help="where to answer (default: LAESCAN_ENGINE_SOCKET)")
    engine.add_argument("--status", action="store_true", help="ask the one that runs how it is; JSON")


def _settings(frames: int | None) -> Settings:
    """From the environment, with what the command line overrides; raises SettingsError."""
    environ = dict(os.environ)
    if frames is not None:
        environ["LAESCAN_MAX_FRAMES"] = str(frames)
    return Settings.from_env(environ)


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


def _scan(given: argparse.Namespace) -> Exit:
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


def _doctor(*, json: bool) -> int:
    from scanner.doctor import examine

    found = examine(os.environ)
    if json:
        print(msgspec.json.encode(found).decode())
        return int(not found.ok)
    for check in found.checks:
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.words[0]}")
        for words in check.words[1:]:
            print(f"     {' ' * len(check.name)}  {words}")
    print("\nsettings:")
    for setting in found.settings:
        print(f"  {'' if setting.is_default else '* '}{setting.variable}={setting.value}\n      {setting.meaning}")
    print("\nall is well" if found.ok else "\nsomething is wrong: see the lines with FAIL")
    return int(not found.ok)


def _engine(given: argparse.Namespace) -> Exit:
    """Be the engine, or ask it."""
    from scanner.engine.wire import socket_path

    settings = Settings.from_env(os.environ)
    path = given.socket or socket_path(settings)
    try:
        if given.status:
            from scanner.engine.client import status

            print(msgspec.json.encode(status(path, timeout_s=5.0)).decode())
        else:
            from scanner.engine.server import run

            logging.getLogger("scanner.engine.server").setLevel(logging.INFO)
            run(settings, path)
    except EngineError as error:
        print(f"laescan: {error.code}: {error}", file=sys.stderr)
        return Exit.NO_ENGINE
    return Exit.OK


def _token(given: argparse.Namespace) -> Exit:
    from redis.exceptions import RedisError

    from api import token_command

    try:
        for line in token_command.run(given, Settings.from_env(os.environ)):
            print(line)
    except RedisError as error:
        print(f"laescan: no Redis answers ({error}); start `laescan serve`, or set LAESCAN_REDIS_URL", file=sys.stderr)
        return Exit.NO_ENGINE
    return Exit.OK


def _annotate(given: argparse.Namespace) -> Exit:
    """Serve the page until Ctrl+C, then say what is there."""
    import webbrowser

    from scanner.training.annotate import serve
    from scanner.training.candidates import CandidatesError, read_sources

    def ready(address: str) -> None:
        print(f"annotate at {address} (Ctrl+C ends)", flush=True)
        if not given.no_browser:
            webbrowser.open(address)

    try:
        asyncio.run(serve(given.folder, port=given.port, ready=ready))
    except (CandidatesError, OSError, OverflowError) as error:  # the last: a port above 65535
        print(f"laescan: {error}", file=sys.stderr)
        return Exit.USAGE
    sources = list(read_sources(given.folder).values())
    print(", ".join(f"{sources.count(source)} {source}" for source in sorted(set(sources))) or "no mask yet")
    return Exit.OK


def _learn(given: argparse.Namespace) -> Exit:
    """Train or evaluate, and say where the report is."""
    from scanner.errors import BadWeights
    from scanner.training import command
    from scanner.training.protocol import MasksWanted

    def tell(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    try:
        print((command.train if given.command == "train" else command.report)(given, tell))
    except MasksWanted as wanted:
        print(f"laescan: {wanted}", file=sys.stderr)
        return Exit.SOME_FAILED
    except (ValueError, OSError, BadWeights) as error:
        print(f"laescan: {error}", file=sys.stderr)
        return Exit.USAGE
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main())
