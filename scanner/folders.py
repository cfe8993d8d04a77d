"""Where things lie on disk: what must survive, what the parts share, and scratch that must not outlive its process.

In: settings and the environment. Out: folders that exist and are ours alone.
One reason: a process killed with -9 cleans nothing up, and no clock tells whether a folder is in use; a lock does.

A scratch folder is locked (flock) while it is used. The kernel drops a lock with its process, however that ended, so
whoever gets the lock on a leftover may remove it.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scanner.settings import Settings

PREFIX: Final = "laescan-scratch-"
"""Of every scratch folder, in the system's folder for temporary files."""


def state_folder(settings: Settings) -> Path:
    """What must survive a restart; made when missing, readable by us only."""
    return _private(state_path(settings))


def state_path(settings: Settings) -> Path:
    """Where that is, whether it is there or not."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(settings.state or Path(base) / "laescan")


def spool_folder(settings: Settings) -> Path:
    """Uploads by the sha256 of their bytes, shared by API and workers."""
    return _private(Path(settings.spool) if settings.spool else state_folder(settings) / "spool")


def _private(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder.resolve()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone after the block, or swept after the death of its process."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else somebody swept it before we held it
            break
        os.close(lock)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep_scratch() -> int:
    """Remove scratch folders of dead processes; out: how many. Safe beside living ones."""
    return sum(_sweep(folder) for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))


def _sweep(folder: Path) -> bool:
    """Whether it was a leftover of ours: a folder, not a link, that nobody has locked."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:  # a file, a link, another user's, or gone
        return False
    try:
        if os.fstat(lock).st_uid != os.getuid():
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # in use
        return False
    finally:
        os.close(lock)
    return True


def sweep_spool(settings: Settings) -> int:
    """Remove uploads that nobody can ask for any more, by their age; out: how many."""
    oldest_s = time.time() - 2 * settings.outcome_ttl_s  # a scan waits, then its outcome is kept for as long
    swept = 0
    for file in spool_folder(settings).iterdir():
        with contextlib.suppress(OSError):
            if file.stat().st_mtime < oldest_s:
                file.unlink()
                swept += 1
    return swept
