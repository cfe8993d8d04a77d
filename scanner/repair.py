"""What killed processes left and what should be private and is not: found, mended, and told.

In: settings. Out: what was mended, and what could not be, in words.
One reason: whether something is still in use is not guessed by a name: a lock or a connection tells, and what these
cannot tell is left alone and said. Only ours is touched: our folders, our sockets, our scratch.
"""

import contextlib
import errno
import fcntl
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from scanner.folders import state_path, sweep_scratch
from scanner.settings import Settings, SettingsError

_HALF_UPLOAD_S: Final = 3_600.0
"""An upload that was not written to for so long has lost its sender: the API cuts one off long before."""
_DRAFTS: Final = ("backup-*", "restore-*", ".receipt.key.*")
_REDIS_DRAFTS: Final = ("temp-*.rdb", "temp-*.aof", "dump.rdb")


class Repair(msgspec.Struct, frozen=True):
    """One thing that was wrong; `done` when it is not any more."""

    what: str
    done: bool


def mend(settings: Settings) -> list[Repair]:
    """Mend what can be mended beside whatever runs, and the state only when nothing uses it."""
    state = state_path(settings)
    found = [*_scratch(), *_narrow(settings), *_sockets(settings), *_uploads(settings)]
    with contextlib.ExitStack() as stack:
        if not state.is_dir():
            return found
        try:
            stack.enter_context(_held(state / "serve.lock"))
        except BlockingIOError:
            words = f"a service runs in {state}: its files were left alone; stop it to have them looked at"
            return [*found, Repair(words, done=False)] if _is_littered(state) else found
        return [*found, *_drafts(state), *_engines(settings), *_append_only_file(state)]


def exposed(settings: Settings) -> Iterator[tuple[Path, int]]:
    """What others may read or enter and should not, and the mode that it should have.

    A group may have what a setting names: API and workers may be two users who share a spool.
    """
    state = state_path(settings)
    named = [Path(name) for name in (settings.spool, settings.receipt_key) if name]
    ours = [state, *(state / name for name in ("redis", "spool", "receipt.key"))]
    for path, closed_to in [(path, 0o077) for path in ours] + [(path, 0o007) for path in named]:
        with contextlib.suppress(OSError):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and mode & closed_to:
                yield path, stat.S_IMODE(mode) & ~closed_to


def stale_sockets(settings: Settings) -> Iterator[Path]:
    """Sockets of ours that nobody listens on."""
    from scanner.engine.wire import socket_path  # noqa: PLC0415 - numpy, which sweeping can do without

    redis = state_path(settings) / "redis" / "redis.sock"
    for path, kind in ((socket_path(settings), socket.SOCK_SEQPACKET), (redis, socket.SOCK_STREAM)):
        if not path.is_socket():
            continue
        with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
            if probe.connect_ex(str(path)) == errno.ECONNREFUSED:
                yield path


# ---------------------------------------------------------------- beside whatever runs


def _scratch() -> Iterator[Repair]:
    count = sweep_scratch()
    if count:
        yield Repair(f"removed {count} scratch folders of processes that died", done=True)


def _narrow(settings: Settings) -> Iterator[Repair]:
    for path, mode in list(exposed(settings)):
        try:
            path.chmod(mode)
        except OSError as error:
            yield Repair(f"others may read {path}, and it is not ours to change: {error.strerror}", done=False)
        else:
            yield Repair(f"closed {path} to others (mode {mode:o})", done=True)


def _sockets(settings: Settings) -> Iterator[Repair]:
    for path in list(stale_sockets(settings)):
        yield _removed(path, f"removed the socket {path}, on which nobody listens")


def _uploads(settings: Settings) -> Iterator[Repair]:
    spool = Path(settings.spool) if settings.spool else state_path(settings) / "spool"
    oldest_s = time.time() - _HALF_UPLOAD_S
    for path in spool.glob("partial-*") if spool.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest_s:
                yield _removed(path, f"removed {path.name}, half an upload")


# ---------------------------------------------------------------- while nothing uses the state


def _drafts(state: Path) -> Iterator[Repair]:
    places = [(state, pattern) for pattern in _DRAFTS] + [(state / "redis", pattern) for pattern in _REDIS_DRAFTS]
    for folder, pattern in places:
        for path in sorted(folder.glob(pattern)):
            yield _removed(path, f"removed {path}, which was never finished")


def _is_littered(state: Path) -> bool:
    return any(next(state.glob(pattern), None) for pattern in _DRAFTS)


def _engines(settings: Settings) -> Iterator[Repair]:
    """Engines whose build was killed: the manifest is written last, so one without it is not there."""
    folder = Path(settings.engines_folder) if settings.engines_folder else state_path(settings) / "engines"
    if not folder.is_dir():
        return
    try:
        with _held(folder / ".lock"):
            halves = [path for path in folder.glob("*.engine") if not path.with_suffix(".json").exists()]
            for path in [*folder.glob("building"), *halves]:
                yield _removed(path, f"removed {path}, an engine whose build was killed")
    except BlockingIOError:
        yield Repair(f"engines are being built in {folder}: it was left alone", done=False)


def _append_only_file(state: Path) -> Iterator[Repair]:
    """Have Redis read what it wrote down; a file that it refuses is copied, then cut off where it is broken."""
    from scanner.service.embedded import find_server, redis_command  # noqa: PLC0415 - only where there is a state

    folder = state / "redis"
    file = next((path for path in (folder / "appendonly.aof", folder / "appendonlydir") if path.exists()), None)
    if file is None:
        return
    try:
        server, command = find_server(), redis_command(folder)
    except SettingsError as error:
        yield Repair(str(error), done=False)
        return
    if _starts(command, folder):
        return
    copy = state / f"redis-broken-{time.strftime('%Y%m%d-%H%M%S')}"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.sock"))
    copy.chmod(0o700)
    target = file if file.is_file() else file / "appendonly.aof.manifest"
    # the server is the checker, too, when it is called by that name
    checker = ("redis-check-aof", "--fix", str(target))
    subprocess.run(checker, executable=server, input=b"y\n", capture_output=True, check=False)
    if _starts(command, folder):
        words = f"cut Redis's append-only file off where it was broken: what came after is lost; the old one is {copy}"
        yield Repair(words, done=True)
    else:
        yield Repair(f"Redis cannot read {target}: restore a backup, or move {folder} away to start empty", done=False)


def _starts(command: list[str], folder: Path) -> bool:
    """Whether a Redis comes up on what lies there; it is ended again, and has written nothing."""
    import redis  # noqa: PLC0415

    from scanner.service.embedded import socket_url  # noqa: PLC0415

    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server,
        redis.Redis.from_url(socket_url(folder)) as client,
    ):
        try:
            while server.poll() is None:
                with contextlib.suppress(redis.exceptions.RedisError):
                    client.ping()
                    return True
                time.sleep(0.02)
            return False
        finally:
            server.terminate()


# ---------------------------------------------------------------- within


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock; raises BlockingIOError when somebody else does."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _removed(path: Path, words: str) -> Repair:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        return Repair(f"{path} could not be removed: {error.strerror}", done=False)
    return Repair(words, done=True)
