"""`python tests/small_disks.py FOLDER COMMAND...`: the command with two small file systems of its own below FOLDER.

`FOLDER/t` (temporary files) and `FOLDER/s/redis` have 24 MB each, in memory, seen by the command and what it starts.
"""

import ctypes
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent))

from scanner.walls import kernel


def main():
    folder, *command = sys.argv[1:]
    spaces = kernel.NEWNS if os.geteuid() == 0 else kernel.NEWNS | kernel.NEWUSER
    kernel.unshare(spaces)
    kernel.call("mount", b"none", b"/", None, ctypes.c_ulong(0x4000 | 0x40000), None)
    for place in (f"{folder}/t", f"{folder}/s/redis"):
        Path(place).mkdir(parents=True, exist_ok=True)
        kernel.call("mount", b"tmpfs", os.fsencode(place), b"tmpfs", ctypes.c_ulong(0), b"size=24m,mode=700")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
