"""`laescan`: arguments in, the command that they name out, and its exit code.

One reason: the parser is built each time that it starts, so this and what it imports stay light: `laescan --help` loads
no torch. A command is one module with `add_commands`, which sets `run`: arguments in, exit code out.
argparse, not click: a dozen commands with a few options each need no dependency, and usage errors exit with 2.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from importlib import metadata

from scanner.bulk import cli as bulk
from scanner.commands import backup, cache, doctor, engine, engines, feedback, learning, scan, schema, tokens, verify
from scanner.commands.exits import Exit, fail
from scanner.logs import LEVELS, VARIABLE, start_logging
from scanner.service import serve
from scanner.settings import SettingsError

__all__ = ["Exit", "main"]
COMMANDS = (scan, bulk, serve, engine, engines, tokens, cache, backup, feedback, verify, schema, doctor, learning)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the `laescan` command; out: the exit code."""
    # Before torch is imported: waiting threads that spin collapse to a twentieth when anything else uses the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    given = _parser().parse_args(arguments)
    if given.log_level is not None:
        os.environ[VARIABLE] = given.log_level  # for what this command starts, too
    start_logging("warning")
    try:
        return int(given.run(given))
    except SettingsError as error:
        return fail(str(error), Exit.USAGE)
    except KeyboardInterrupt:
        return fail("interrupted", Exit.INTERRUPTED)
    except asyncio.CancelledError:
        return Exit.TERMINATED
    except BrokenPipeError:  # e.g. `| head`: nobody reads on; the interpreter must not trip over it at exit either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="laescan",
        description="Is a face in this picture or video forged? A verdict with the evidence, on your own machine.",
        epilog="`laescan COMMAND --help` tells more. Settings are LAESCAN_* variables; `laescan doctor` lists them.",
    )
    parser.add_argument("--version", action="version", version=f"laescan {metadata.version('laescan')}")
    parser.add_argument("--log-level", choices=LEVELS, metavar="LEVEL", help=f"on stderr: {', '.join(LEVELS)}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_commands(commands)
    for command in commands.choices.values():  # so that it may stand behind the command, too
        command.add_argument(
            "--log-level", choices=LEVELS, metavar="LEVEL", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
