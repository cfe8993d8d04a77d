"""Scratch is gone with its process, however that ended, and never before."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from scanner.folders import Scratch, scratch_folder, spool_folder, state_folder, sweep_scratch, sweep_spool
from scanner.settings import Settings

HOLD = """
import sys, time
from scanner.folders import scratch_folder
with scratch_folder() as folder:
    (folder / "picture").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_scratch_folder_is_ours_alone_and_goes_with_its_block(scratch: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == scratch
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "x").write_bytes(b"x")
    assert list(scratch.iterdir()) == []


def test_many_scans_share_a_scratch_folder_and_find_theirs_empty(scratch: Path) -> None:
    with scratch_folder() as base:
        shared = Scratch(base)
        with shared.folder() as one, shared.folder() as other:
            assert one != other
            (one / "download").write_bytes(b"a stranger's")
            (one / "link").symlink_to(other)
            (other / "page").mkdir()
        with shared.folder() as next_one, shared.folder() as fresh:
            assert next_one == one
            assert fresh != other
            assert not [*next_one.iterdir(), *fresh.iterdir()]
            next_one.rmdir()
        with shared.folder() as after:
            assert not list(after.iterdir())
    assert not list(scratch.iterdir())


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_uses_is_not(scratch: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(scratch)}
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, env=environment, text=True)
        for _ in range(2)
    ]
    dead, living = (Path(holder.stdout.readline().strip()) for holder in holders)
    holders[0].send_signal(signal.SIGKILL)
    holders[0].communicate()
    with scratch_folder() as ours:
        assert sweep_scratch() == 1
        assert ours.exists()
    assert not dead.exists()
    assert (living / "picture").exists()
    holders[1].kill()
    holders[1].communicate()
    assert sweep_scratch() == 1


def test_links_files_and_other_folders_are_left_alone(scratch: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (scratch / "laescan-scratch-link").symlink_to(elsewhere)
    (scratch / "laescan-scratch-file").write_bytes(b"")
    (scratch / "laescan").mkdir()
    (scratch / "other").mkdir()
    assert sweep_scratch() == 0
    assert elsewhere.exists()
    assert len(list(scratch.iterdir())) == 4


def test_the_state_lies_where_it_is_said_or_where_the_desktop_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "x"))
    assert state_folder(Settings()) == tmp_path / "x/laescan"
    assert spool_folder(Settings(state=str(tmp_path / "s"))) == tmp_path / "s/spool"
    assert spool_folder(Settings(spool=str(tmp_path / "u"))) == tmp_path / "u"
    assert (tmp_path / "u").stat().st_mode & 0o077 == 0


def test_uploads_go_when_nobody_can_ask_for_them(tmp_path: Path) -> None:
    settings = Settings(spool=str(tmp_path), outcome_ttl_s=60)
    for name, age_s in (("old", 130), ("new", 10)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    assert sweep_spool(settings) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["new"]


def test_uploads_go_soon_when_no_scan_is_about_them(tmp_path: Path) -> None:
    settings = Settings(spool=str(tmp_path))
    for name, age_s in (("scanned", 700), ("waits", 700), ("just came", 10)):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    assert sweep_spool(settings, lambda: {"waits"}) == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["just came", "waits"]
    (tmp_path / "waits").unlink()
    assert sweep_spool(settings, lambda: pytest.fail("nothing is old, nobody is asked")) == 0
