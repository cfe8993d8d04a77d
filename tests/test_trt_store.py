"""Nothing in the store is loaded unless we, and nobody else, wrote it, and it is what was written."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from test_trt_manifest import MANIFEST

from trt_engines.errors import Busy, Untrusted
from trt_engines.store import Store

CODE = b"machine code"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "engines")


def put(store, code=CODE, *, built_at=MANIFEST.built_at, onnx=b""):
    about = msgspec.structs.replace(
        MANIFEST, sha256=hashlib.sha256(code).hexdigest(), size_bytes=len(code), built_at=built_at
    )
    with store.workshop() as folder:
        engine, graph = folder / "engine.pt2", folder / "graph.onnx"
        engine.write_bytes(code)
        graph.write_bytes(onnx)
        return store.put(engine, about, graph if onnx else None)


def read(store, entry):
    with store.opened(entry) as path:
        return Path(path).read_bytes()


def test_an_engine_comes_back_with_its_manifest_and_its_portable_form(store):
    entry = put(store, onnx=b"graph")
    (found,) = store.entries()
    assert found == entry
    assert read(store, found) == CODE
    assert entry.path.with_suffix(".onnx").read_bytes() == b"graph"
    assert [file.stat().st_mode & 0o077 for file in (store.folder, entry.path, entry.engine)] == [0, 0, 0]


def test_the_newest_comes_first(store):
    put(store, b"old", built_at="2026-01-01")
    put(store, b"new", built_at="2026-02-01")
    assert [read(store, entry) for entry in store.entries()] == [b"new", b"old"]


def refused(store, words):
    (entry,) = store.entries()
    with pytest.raises(Untrusted, match=words):
        read(store, entry)


def test_one_altered_bit_is_refused(store):
    entry = put(store)
    code = bytearray(CODE)
    code[0] ^= 1
    entry.engine.write_bytes(code)
    refused(store, "digest differs")


def test_a_longer_engine_is_refused_before_it_is_read_whole(store):
    entry = put(store)
    entry.engine.write_bytes(CODE + b"more")
    refused(store, "longer than what was built")


def test_a_missing_engine_is_refused(store):
    put(store).engine.unlink()
    refused(store, "cannot be opened")


def test_a_link_is_refused_though_it_leads_to_the_right_bytes(store, tmp_path):
    entry = put(store)
    elsewhere = entry.engine.rename(tmp_path / "elsewhere")
    entry.engine.symlink_to(elsewhere)
    refused(store, "cannot be opened")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_folder_or_a_pipe_in_its_place_is_refused(store, make):
    entry = put(store)
    entry.engine.unlink()
    make(entry.engine)
    refused(store, "is no file")


@pytest.mark.parametrize("which", ["engine", "path"])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_what_others_may_write_is_refused(store, which, mode):
    getattr(put(store), which).chmod(mode)
    refused(store, "can be written by others")


def test_a_folder_that_others_may_write_is_refused(store):
    put(store)
    store.folder.chmod(0o777)
    refused(store, "can be written by others")


def test_what_belongs_to_another_user_is_refused(store, monkeypatch):
    put(store)
    owner = store.folder.stat().st_uid
    if owner == 0:  # root may give files away
        (entry,) = store.entries()
        os.chown(entry.engine, 12345, 12345)
    else:
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    refused(store, "belongs to another user")


def test_a_manifest_that_is_none_is_an_entry_with_trouble(store):
    put(store).path.write_bytes(b"{}")
    (entry,) = store.entries()
    assert entry.manifest is None
    assert "no manifest of this version" in entry.trouble


def test_what_was_verified_is_what_is_read_whatever_happens_to_the_file(store):
    entry = put(store)
    with store.opened(entry) as path:
        entry.engine.write_bytes(b"something else")
        assert Path(path).read_bytes() == CODE


def test_an_engine_without_its_manifest_is_not_there_and_an_orphan(store):
    entry = put(store, onnx=b"graph")
    entry.path.unlink()
    assert store.entries() == []
    assert sorted(file.suffix for file in store.orphans()) == [".engine", ".onnx"]


def test_removing_removes_all_of_it(store):
    entry = put(store, onnx=b"graph")
    assert store.remove(entry) > len(CODE)
    assert [file.name for file in store.folder.iterdir()] == []


def test_the_workshop_is_swept_of_what_a_killed_build_left(store):
    (store.folder / "building").mkdir()
    (store.folder / "building" / "half.pt2").write_bytes(b"half")
    with store.workshop() as folder:
        assert list(folder.iterdir()) == []
    assert not folder.exists()


HOLD = """
import pathlib, sys
from trt_engines.store import Store
with Store(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_only_one_process_builds_and_its_death_ends_its_lock(store):
    command = [sys.executable, "-c", HOLD, str(store.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Busy, match="another process"), store.locked():
            pass
        other.kill()
    with store.locked(wait=True):
        pass
