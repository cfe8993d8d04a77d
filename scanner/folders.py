"""Where things lie on disk: what must survive, what the parts share, and scratch that must not outlive its process.

In: settings and the environment. Out: folders that exist and are ours alone.
One reason: a process killed with -9 cleans nothing up, and no clock tells whether a folder is in use; a lock does.

A scratch folder is locked (flock) while it is used. The kernel drops a lock with its process, however that ended, so
whoever gets the lock on a leftover may remove it.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Final

from scanner.settings import Settings

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PREFIX: Final = "laescan-scratch-"
"""Of every scratch folder, in the system's folder for temporary files."""
ACCEPTED_WITHIN_S: Final = 600.0
"""An upload that no scan names after so long never gets one."""


class UnwritableError(Exception):
    """A folder that somebody named cannot be written (any more); the words tell which and why."""


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


class Scratch:
    """One scratch folder for many scans: each has a folder in it to itself, and the next one gets it empty.

    To make, lock and drop a folder for each picture took a quarter of a list's event loop: closing a locked folder
    that is gone waits for the file system's journal (ext4).
    """

    def __init__(self, base: Path) -> None:
        self._base = base
        self._free: list[Path] = []

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder while the block runs."""
        try:
            folder = self._free.pop()
        except IndexError:
            folder = Path(tempfile.mkdtemp(dir=self._base))
        try:
            yield folder
        finally:
            if _emptied(folder):
                self._free.append(folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _emptied(folder: Path) -> bool:
    """Whether there were only files in it; they are gone."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                os.unlink(entry.path)  # noqa: PTH108 - a thousand times a second
    except OSError:  # a folder in it, or it is no more
        return False
    return True


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


def sweep_spool(settings: Settings, in_use: Callable[[], Container[str]] | None = None) -> int:
    """Remove uploads that no scan is about any more, or that are too old for any; out: how many.

    `in_use` answers the names of those that scans wait for; it is asked when there is something to remove.
    """
    now_s = time.time()
    oldest_s = ACCEPTED_WITHIN_S if in_use else 2 * settings.outcome_ttl_s  # a scan waits, then its outcome is kept
    old = [file for file in spool_folder(settings).iterdir() if _age_s(file, now_s) > oldest_s]
    used = in_use() if in_use and old else ()
    gone = [file for file in old if file.name not in used]
    for file in gone:
        file.unlink(missing_ok=True)
    return len(gone)


def _age_s(file: Path, now_s: float) -> float:
    """Since it was written; 0 for one that another sweep has just removed."""
    try:
        return now_s - file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def is_full(error: BaseException) -> bool:
    """Whether it says that a disk, or our share of it, has no more room."""
    return isinstance(error, OSError) and error.errno in _FULL
