"""A folder of engines, each with its manifest: put, list, open, prune.

    MODEL-FLAVOUR-PRECISION-DIGEST.engine   what the compiler wrote
    MODEL-FLAVOUR-PRECISION-DIGEST.json     its manifest; written last, so an engine without one is not there
    MODEL-FLAVOUR-PRECISION-DIGEST.onnx     the portable form, where it could be written

One reason: an engine is code that runs in our process, so nothing is loaded before its owner, its permissions and its
digest were checked, and what is loaded are the very bytes that were checked.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trt_engines.errors import Busy, Untrusted
from trt_engines.manifest import Manifest

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
MANIFEST_BYTES = 1_000_000


@dataclass(frozen=True)
class Entry:
    """An engine in the store; `manifest` None when it cannot be trusted or read, then `trouble` says why."""

    path: Path  # of the manifest
    manifest: Manifest | None
    trouble: str = ""

    @property
    def engine(self) -> Path:
        """The engine's file."""
        return self.path.with_suffix(".engine")


class Store:
    """The engines of one folder, which is made when missing, for us alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Be the only one who builds or prunes; raises Busy unless told to wait. A lock ends with its process."""
        with (self.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                msg = f"another process is building engines in {self.folder}; wait for it"
                raise Busy(msg) from error
            yield

    @contextlib.contextmanager
    def workshop(self) -> Iterator[Path]:
        """A folder on the same disk for what is being built; gone afterwards. Only with the lock."""
        folder = self.folder / "building"
        shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, engine: Path, manifest: Manifest, onnx: Path | None) -> Entry:
        """Take over files from the workshop; whoever lists sees all of it or nothing."""
        stem = f"{manifest.model_id}-{manifest.flavour}-{manifest.precision}-{manifest.sha256[:12]}"
        path = self.folder / f"{stem}.json"
        engine.chmod(0o600)
        engine.rename(path.with_suffix(".engine"))
        if onnx is not None:
            onnx.rename(path.with_suffix(".onnx"))
        written = engine.with_suffix(".json")
        with os.fdopen(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
            os.fsync(file.fileno())
        written.rename(path)
        return Entry(path, manifest)

    def entries(self) -> list[Entry]:
        """What is there, newest first; the trusted ones before the others."""
        found = [self._entry(path) for path in sorted(self.folder.glob("*.json"))]
        found.sort(key=lambda entry: entry.manifest.built_at if entry.manifest else "", reverse=True)
        return found

    def _entry(self, path: Path) -> Entry:
        try:
            return Entry(path, msgspec.json.decode(_trusted_bytes(path, MANIFEST_BYTES), type=Manifest))
        except Untrusted as error:
            return Entry(path, None, str(error))
        except msgspec.MsgspecError as error:
            return Entry(path, None, f"{path.name} is no manifest of this version ({error}); build the engine again")

    @contextlib.contextmanager
    def opened(self, entry: Entry) -> Iterator[str]:
        """A path to the verified bytes of an engine, in memory, where nobody can alter them; raises Untrusted."""
        if entry.manifest is None:
            raise Untrusted(entry.trouble)
        data = _trusted_bytes(entry.engine, entry.manifest.size_bytes)
        if hashlib.sha256(data).hexdigest() != entry.manifest.sha256:
            msg = f"{entry.engine.name} is not what was built here (its digest differs); prune it and build again"
            raise Untrusted(msg)
        descriptor = os.memfd_create("laescan-engine", os.MFD_CLOEXEC)
        try:
            with os.fdopen(descriptor, "wb", closefd=False) as memory:
                memory.write(data)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def remove(self, entry: Entry) -> int:
        """Remove an engine, its manifest first; out: bytes."""
        files = [file for suffix in (".json", ".engine", ".onnx") if (file := entry.path.with_suffix(suffix)).exists()]
        size_bytes = sum(file.lstat().st_size for file in files)
        for file in files:
            file.unlink()
        return size_bytes

    def orphans(self) -> list[Path]:
        """Engines without a manifest, and graphs without an engine: what a killed build left."""
        return [
            file
            for suffix in (".engine", ".onnx")
            for file in sorted(self.folder.glob(f"*{suffix}"))
            if not file.with_suffix(".json").exists()
        ]


def _trusted_bytes(path: Path, most_bytes: int) -> bytes:
    """The bytes of a file that nobody but us, or root, can have written; raises Untrusted."""
    _check(path.parent, path.parent.stat())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would block
    except OSError as error:  # missing, or a link
        msg = f"{path.name} cannot be opened ({error.strerror}); prune it and build again"
        raise Untrusted(msg) from error
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            msg = f"{path.name} is no file; prune it and build again"
            raise Untrusted(msg)
        _check(path, about)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > most_bytes:
        msg = f"{path.name} is longer than what was built here; prune it and build again"
        raise Untrusted(msg)
    return data


def _check(path: Path, about: os.stat_result) -> None:
    if about.st_uid not in {os.getuid(), 0}:
        msg = (
            f"{path} belongs to another user (uid {about.st_uid}); engines are executable code: prune, and build again"
        )
        raise Untrusted(msg)
    if about.st_mode & _OTHERS_MAY_WRITE:
        msg = f"{path} can be written by others ({stat.filemode(about.st_mode)}); chmod go-w it, prune, and build again"
        raise Untrusted(msg)
