"""A program that dies when the one that started it does, however that one dies.

In: a parent's pid, a signal, a command. Out: the command, in this very process, with the kernel told what to do.
One reason: a supervisor killed with -9 stops nothing any more, and a Redis or a port that is left behind is in the way
of the next one. `python -m scanner.service.leash PARENT SIGNAL COMMAND...`

A wrapper and no preexec_fn: that would run Python between fork and exec of a process that has threads.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); the kernel keeps it over exec


def die_with(parent: int, signal: int) -> None:
    """Get the signal when our parent dies; raises SystemExit when it is dead already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Become the command."""
    parent, signal, *command = arguments
    die_with(int(parent), int(signal))
    os.execv(command[0], command)  # noqa: S606 - our own supervisor gave it


if __name__ == "__main__":
    main(sys.argv[1:])
