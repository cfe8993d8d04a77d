"""The service's state out into one file, beside the running service, and back into an empty folder.

In: the state folder of `laescan serve`. Out: a tar file with all that a restart needs; or that folder again.

    redis/dump.rdb    queue, ledger, tokens, remembered verdicts: one moment, as Redis's own snapshot
    spool/SHA256      uploads that may still be scanned
    receipt.key       what receipts are signed with
    manifest.json     last: a sha256 of each, so that a file that was cut off or changed is refused

One reason: an append-only file that is copied while it grows is a piece of one; a snapshot is whole. Scans that ran at
that moment are given back and run again, as after any crash. A Redis that LAESCAN_REDIS_URL names has its own means.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Final, cast

import msgspec
import redis
from msgspec import Meta
from redis.exceptions import RedisError

from scanner.folders import spool_folder, state_folder
from scanner.receipts import key_path
from scanner.service.embedded import redis_command, socket_url
from scanner.service.serve import alone
from scanner.settings import Settings

SNAPSHOT: Final = "redis/dump.rdb"
KEY: Final = "receipt.key"
MANIFEST: Final = "manifest.json"
_MEMBER: Final = re.compile(r"redis/dump\.rdb|receipt\.key|spool/[0-9a-f]{64}")
_CHUNK_BYTES: Final = 1 << 20
_POLL_S: Final = 0.05
_START_S: Final = 600.0  # a large file takes its time to be loaded


class BackupError(Exception):
    """Nothing was written, or nothing was restored; the message says why and what to do."""


class _Manifest(msgspec.Struct, frozen=True):
    laescan_backup: Annotated[int, Meta(ge=1, le=1)]
    made_s: float
    files: dict[str, str]  # name: sha256


class Copied(msgspec.Struct, frozen=True):
    """What a backup holds."""

    uploads: int
    size_bytes: int
    made_s: float


def back_up(settings: Settings, path: Path) -> Copied:
    """Write the file, whole or not at all, readable by us only: it holds uploads and the key of the receipts.

    Raises BackupError, SettingsError, OSError and redis.RedisError.
    """
    _refuse_foreign(settings)
    state = state_folder(settings)
    draft = path.with_name(f".{path.name}.part")
    try:
        with (
            _reach(state) as client,
            tempfile.TemporaryDirectory(dir=state, prefix="backup-") as folder,
            os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file,
        ):
            held = Path(folder)
            _hold_uploads(settings, held)  # by a second name: a scan that ends meanwhile may remove the first
            snapshot = _snapshot(client, state, held)
            _hold_uploads(settings, held)
            files = {SNAPSHOT: snapshot, **{f"spool/{upload.name}": upload for upload in held.glob("?" * 64)}}
            if key_path(settings).exists():
                files[KEY] = key_path(settings)
            made_s = _write(file, files)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Copied(sum(name.startswith("spool/") for name in files), path.stat().st_size, made_s)


def restore(settings: Settings, path: Path) -> Copied:
    """Make the state folder from a backup; the service must be stopped, and the folder without a state.

    Raises BackupError, SettingsError, OSError, and redis.RedisError when Redis cannot read the snapshot.
    """
    _refuse_foreign(settings)
    state, spool, key = state_folder(settings), spool_folder(settings), key_path(settings)
    taken = [place for place in (state / "redis", key) if place.exists()] + list(spool.iterdir())
    if taken:
        msg = f"{taken[0]} is there already: move it away, or set LAESCAN_STATE to another folder"
        raise BackupError(msg)
    with alone(state), tempfile.TemporaryDirectory(dir=state, prefix="restore-") as folder:
        stage = Path(folder)
        manifest = _unpack(path, stage)
        _load(stage / "redis")
        for upload in stage.glob("spool/*"):
            shutil.move(upload, spool / upload.name)
        if (stage / KEY).exists():
            shutil.move(stage / KEY, key)
        (stage / "redis").rename(state / "redis")  # last: now there is a state
    uploads = sum(name.startswith("spool/") for name in manifest.files)
    return Copied(uploads, path.stat().st_size, manifest.made_s)


def _refuse_foreign(settings: Settings) -> None:
    if settings.redis_url:
        msg = "LAESCAN_REDIS_URL names a Redis that is not ours: back it up by its own means (its RDB or AOF files)"
        raise BackupError(msg)


# ---------------------------------------------------------------- Redis


def _snapshot(client: redis.Redis, state: Path, held: Path) -> Path:
    """One moment of the Redis of this state as a file."""
    dump = state / "redis" / "dump.rdb"
    dump.unlink(missing_ok=True)  # of a backup that was killed
    client.bgsave(schedule=True)  # after an append-only file that is being rewritten
    while not dump.exists():  # it appears by a rename, complete
        about = cast("dict[str, object]", client.info("persistence"))
        if about["rdb_last_bgsave_status"] != "ok" and not about["rdb_bgsave_in_progress"]:
            msg = "Redis could not write its snapshot; its log says why (disk full?)"
            raise BackupError(msg)
        time.sleep(_POLL_S)
    return dump.rename(held / "dump.rdb")


@contextlib.contextmanager
def _reach(state: Path) -> Iterator[redis.Redis]:
    """The Redis of the running service, or one for the while, in which no service can start."""
    folder = state / "redis"
    if not folder.exists():
        msg = f"there is no state in {state}: `laescan serve` has not run there"
        raise BackupError(msg)
    with redis.Redis.from_url(socket_url(folder)) as client:
        try:
            client.ping()
        except RedisError:
            with alone(state), _running(redis_command(folder), client):
                yield client
        else:
            yield client


@contextlib.contextmanager
def _running(command: list[str], client: redis.Redis) -> Iterator[None]:
    """A Redis for as long as the block; what it was given stays in its append-only file."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _await_answer(server, client)
            yield
        finally:
            server.terminate()


def _await_answer(server: "subprocess.Popen[bytes]", client: redis.Redis) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(RedisError):
            client.ping()
            return
        if server.poll() is not None:
            break
        time.sleep(_POLL_S)
    msg = "redis-server cannot read this: the file is of a newer Redis, or corrupt"
    raise BackupError(msg)


def _load(folder: Path) -> None:
    """Turn the snapshot in a folder into the append-only file that the service starts from.

    A Redis with `appendonly yes` starts empty beside a snapshot; it must be told once it has loaded one.
    """
    command = redis_command(folder)
    command[command.index("--appendonly") + 1] = "no"
    with redis.Redis.from_url(socket_url(folder)) as client, _running(command, client):
        client.config_set("appendonly", "yes")
        while True:
            about = cast("dict[str, object]", client.info("persistence"))
            if not about["aof_rewrite_in_progress"] and not about["aof_rewrite_scheduled"]:
                break
            time.sleep(_POLL_S)
        if about["aof_last_bgrewrite_status"] != "ok":
            msg = "Redis could not write its append-only file (disk full?)"
            raise BackupError(msg)
    (folder / "dump.rdb").unlink()


# ---------------------------------------------------------------- the file


def _hold_uploads(settings: Settings, held: Path) -> None:
    """Give every upload a second name, or copy it where that cannot be."""
    for upload in spool_folder(settings).glob("?" * 64):
        with contextlib.suppress(FileExistsError, FileNotFoundError):
            try:
                os.link(upload, held / upload.name)
            except FileExistsError:
                raise
            except OSError:  # another file system
                shutil.copyfile(upload, held / upload.name)


def _write(file: io.BufferedWriter, files: Mapping[str, Path]) -> float:
    made_s, digests = time.time(), dict[str, str]()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, source in files.items():
            with source.open("rb") as data:
                digests[name] = hashlib.file_digest(data, "sha256").hexdigest()
                member = tarfile.TarInfo(name)
                member.size, member.mtime, member.mode = data.tell(), int(made_s), 0o600
                data.seek(0)
                tar.addfile(member, data)
        manifest = json.dumps({"laescan_backup": 1, "made_s": made_s, "files": digests}).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mtime, member.mode = len(manifest), int(made_s), 0o600
        tar.addfile(member, io.BytesIO(manifest))
    file.flush()
    os.fsync(file.fileno())
    return made_s


def _unpack(path: Path, stage: Path) -> _Manifest:
    """Every member, by names that we know only, held against the manifest; raises BackupError."""
    digests, manifest = dict[str, str](), None
    for name in ("redis", "spool"):
        (stage / name).mkdir(mode=0o700)
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                source = tar.extractfile(member) if member.isreg() else None
                if source is not None and member.name == MANIFEST:
                    manifest = msgspec.json.decode(source.read(), type=_Manifest)
                elif source is None or manifest is not None or not _MEMBER.fullmatch(member.name):
                    msg = f"{path} holds {member.name!r}, which no backup does"
                    raise BackupError(msg)
                else:
                    digests[member.name] = _copy(source, stage / member.name)
    except (tarfile.TarError, msgspec.MsgspecError, EOFError) as error:
        msg = f"{path} is no backup, or a piece of one: {error}"
        raise BackupError(msg) from error
    if manifest is None or manifest.files != digests or SNAPSHOT not in digests:
        msg = f"{path} was cut off or changed: its parts are not those that its manifest names"
        raise BackupError(msg)
    return manifest


def _copy(source: IO[bytes], target: Path) -> str:
    """Write a member, readable by us only; out: its sha256."""
    digest = hashlib.sha256()
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
