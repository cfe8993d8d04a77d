"""`python tests/forbidding.py COMMAND...`: the command where namespaces are forbidden, as by containers' filters."""

import errno
import os
import platform
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from scanner.walls import kernel, seccomp

UNSHARE = {"x86_64": 272, "aarch64": 97}


def forbid_namespaces():
    """For this process and all that it starts, for good."""
    number = UNSHARE[platform.machine()]
    refusal = seccomp._op(seccomp._RETURN, seccomp._FAIL | errno.EPERM)
    allowed = seccomp._op(seccomp._RETURN, seccomp._ALLOW)
    kernel._prctl(kernel._SET_NO_NEW_PRIVS, 1)
    kernel.filter_calls(
        seccomp._prologue(platform.machine()) + seccomp._op(seccomp._EQUAL, number, 0, 1) + refusal + allowed
    )


if __name__ == "__main__":
    forbid_namespaces()
    os.execv(sys.argv[1], sys.argv[1:])
