"""What a shell script sees: the exit codes that commands share. A command's own `--help` tells which it uses."""

import sys
from enum import IntEnum


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    FAIL_ON = 1
    USAGE = 2
    SOME_FAILED = 3
    NO_ENGINE = 4
    UNWRITABLE = 5
    INTERRUPTED = 130
    TERMINATED = 143


def fail(words: str, code: Exit) -> Exit:
    """Say on stderr why, in one line."""
    print(f"laescan: {words}", file=sys.stderr)
    return code
