"""How much is logged, on stderr: what a command usually says, or what LAESCAN_LOG_LEVEL (`--log-level`) asks for.

One reason: only our own loggers follow that wish. A library that is told `debug` prints whole URLs, whose query strings
may hold tokens; libraries stay at `warning`.
"""

import logging
import os
import sys
from typing import Final, Literal, get_args

from scanner.settings import PREFIX

Level = Literal["debug", "info", "warning", "error"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
VARIABLE: Final = f"{PREFIX}LOG_LEVEL"
FORMAT: Final = "%(levelname)s %(name)s: %(message)s"
OURS: Final = ("scanner", "api", "__main__")


def start_logging(usual: Level, form: str = FORMAT, *, times: str | None = None, anew: bool = False) -> None:
    """Log to stderr in the given form; `times` as in logging's `datefmt`, `anew` replaces what was set up before.

    A bad LAESCAN_LOG_LEVEL is left to `Settings.from_env`, which refuses it in words.
    """
    logging.basicConfig(level=logging.WARNING, format=form, datefmt=times, stream=sys.stderr, force=anew)
    asked = os.environ.get(VARIABLE, "")
    level = asked if asked in LEVELS else usual
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
