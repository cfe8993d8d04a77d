"""`laescan engine`: be the process that holds the model, or ask the one that runs how it is."""

import argparse
import os
from pathlib import Path

import msgspec

from scanner.commands.exits import Exit, fail
from scanner.errors import EngineError
from scanner.logs import start_logging
from scanner.settings import Settings


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its arguments."""
    engine = commands.add_parser(
        "engine",
        help="hold the model for all workers of this machine",
        description="Load the model once and judge for every worker of this machine, in shared batches. Ctrl+C drains.",
        epilog="CUDA_VISIBLE_DEVICES picks the GPU; for a second one start another engine on another socket. "
        "Exit codes: 0 drained, 4 there is one already, or no weights, or (with --status) none.",
    )
    engine.add_argument("--socket", type=Path, metavar="PATH", help="where to answer (default: LAESCAN_ENGINE_SOCKET)")
    engine.add_argument("--status", action="store_true", help="ask the one that runs how it is; JSON")
    engine.set_defaults(run=run)


def run(given: argparse.Namespace) -> Exit:
    """Be the engine until a signal, or ask it; raises SettingsError."""
    from scanner.engine.wire import socket_path

    settings = Settings.from_env(os.environ)
    path = given.socket or socket_path(settings)
    try:
        if given.status:
            from scanner.engine.client import status

            print(msgspec.json.encode(status(path, timeout_s=5.0)).decode())
        else:
            from scanner.engine import server

            start_logging("info")
            server.run(settings, path)
    except EngineError as error:
        return fail(f"{error.code}: {error}", Exit.NO_ENGINE)
    return Exit.OK
