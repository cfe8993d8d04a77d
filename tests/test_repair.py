"""`laescan doctor --fix`: what is dead goes, what lives stays, what should be private is; and each is told."""

import os
import socket
import stat
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
import redis
from redis_server import redis_in, start_redis

from scanner.commands import doctor as command
from scanner.doctor import Diagnosis
from scanner.engine.wire import new_socket
from scanner.folders import scratch_folder
from scanner.receipts import Signer
from scanner.repair import exposed, mend, stale_sockets
from scanner.service.embedded import socket_url
from scanner.service.serve import alone
from scanner.settings import Settings, SettingsError


@pytest.fixture
def state(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return folder


@pytest.fixture
def settings(state):
    return Settings(state=str(state), engine_socket=str(state / "engine.sock"))


def told(settings):
    repairs = mend(settings)
    assert all(repair.done for repair in repairs), repairs
    return " | ".join(repair.what for repair in repairs)


def test_where_nothing_is_nothing_is_mended_and_nothing_made(settings, state):
    state.rmdir()
    assert mend(settings) == []
    assert not state.exists()


def test_a_scratch_folder_of_the_dead_goes_and_one_in_use_stays(settings, tmp_path):
    (tmp_path / "tmp" / "laescan-scratch-dead").mkdir()
    with scratch_folder() as living:
        assert "removed 1 scratch folders" in told(settings)
        assert living.exists()
    assert not (tmp_path / "tmp" / "laescan-scratch-dead").exists()


def test_a_socket_goes_only_when_nobody_listens(settings, state):
    with new_socket() as engine, socket.socket(socket.AF_UNIX) as other:
        engine.bind(settings.engine_socket)
        engine.listen()
        (state / "redis").mkdir(mode=0o700)
        other.bind(str(state / "redis" / "redis.sock"))  # and never listens, as after a kill
        assert list(stale_sockets(settings)) == [state / "redis" / "redis.sock"]
        assert "redis.sock, on which nobody listens" in told(settings)
        assert Path(settings.engine_socket).exists()
    assert "engine.sock, on which nobody listens" in told(settings)
    assert not Path(settings.engine_socket).exists()


def test_a_file_that_stands_where_the_socket_should_is_not_ours_to_remove(settings):
    Path(settings.engine_socket).write_text("somebody's")
    assert mend(settings) == []
    assert Path(settings.engine_socket).read_text() == "somebody's"


def test_what_is_private_is_closed_to_others(settings, state):
    Signer(settings).public_pem()
    for name in ("redis", "spool"):
        (state / name).mkdir(mode=0o755)
    state.chmod(0o755)
    (state / "receipt.key").chmod(0o644)
    assert len(list(exposed(settings))) == 4
    assert told(settings).count("to others") == 4
    assert list(exposed(settings)) == []
    assert stat.S_IMODE((state / "receipt.key").stat().st_mode) == 0o600


def test_a_group_may_have_what_a_setting_names_and_everybody_may_not(settings, state, tmp_path):
    for name, mode in (("shared", 0o770), ("open", 0o777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    assert mend(msgspec.structs.replace(settings, spool=str(tmp_path / "shared"))) == []
    assert "to others (mode 770)" in told(msgspec.structs.replace(settings, spool=str(tmp_path / "open")))


def test_a_link_is_not_followed_to_what_is_another_s(settings, state, tmp_path):
    (tmp_path / "public").mkdir(mode=0o755)
    (state / "spool").symlink_to(tmp_path / "public")
    assert mend(settings) == []
    assert stat.S_IMODE((tmp_path / "public").stat().st_mode) == 0o755


def test_half_an_upload_goes_when_its_sender_is_long_gone(settings, state):
    (state / "spool").mkdir(mode=0o700)
    for name in ("partial-old", "partial-new", "0" * 64):
        (state / "spool" / name).write_bytes(b"x")
    os.utime(state / "spool" / "partial-old", (time.time() - 4000,) * 2)
    assert "partial-old" in told(settings)
    assert sorted(path.name for path in (state / "spool").iterdir()) == ["0" * 64, "partial-new"]


def test_drafts_go_only_while_no_service_runs(settings, state):
    (state / "backup-x1").mkdir()
    (state / ".receipt.key.ab").write_text("half a key")
    with alone(state):
        (left,) = mend(settings)
        assert not left.done
        assert "a service runs" in left.what
        assert (state / "backup-x1").exists()
    assert told(settings).count("never finished") == 2
    assert {path.name for path in state.iterdir()} == {"serve.lock"}


def test_engines_whose_build_was_killed_go(settings, state):
    folder = state / "engines"
    (folder / "building" / "deep").mkdir(parents=True)
    for name in ("whole.engine", "whole.json", "half.engine"):
        (folder / name).write_text("x")
    assert told(settings).count("whose build was killed") == 2
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "whole.engine", "whole.json"]


def test_what_redis_wrote_down_is_cut_where_it_broke_and_the_old_file_is_kept(settings, state):
    folder = state / "redis"
    with redis_in(folder) as url, redis.Redis.from_url(url) as client:
        for number in range(100):
            client.rpush("list", number)
    assert "on which nobody listens" in told(settings)
    assert mend(settings) == [], "a file that Redis reads is left alone"
    (written,) = [path for path in folder.rglob("*.aof") if b"rpush" in path.read_bytes().lower()]
    whole = written.read_bytes()
    middle = whole.lower().index(b"rpush", len(whole) // 2)
    written.write_bytes(whole[:middle] + b"\xff" * 40 + whole[middle + 40 :])
    assert "cut Redis's append-only file off where it was broken" in told(settings)
    (copy,) = state.glob("redis-broken-*")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    assert any(b"\xff" * 40 in path.read_bytes() for path in copy.rglob("*.aof"))
    server = start_redis(folder)
    with redis.Redis.from_url(socket_url(folder)) as client:
        assert 10 < client.llen("list") < 100
    server.kill()
    server.wait()


def test_what_cannot_be_mended_is_told_with_what_to_do(settings, state, monkeypatch):
    def no_server():
        msg = "no redis-server on the PATH; install one"
        raise SettingsError(msg)

    (state / "redis").mkdir(mode=0o700)
    (state / "redis" / "appendonly.aof").write_bytes(b"")
    monkeypatch.setattr("scanner.service.embedded.find_server", no_server)
    (left,) = mend(settings)
    assert (left.done, left.what) == (False, "no redis-server on the PATH; install one")


def test_the_command_mends_first_and_then_tries(settings, state, monkeypatch, capsys):
    monkeypatch.setenv("LAESCAN_STATE", str(state))
    monkeypatch.setattr("scanner.doctor.examine", lambda _environ: Diagnosis(ok=True, checks=(), settings=()))
    state.chmod(0o755)
    given = command.argparse.Namespace(fix=True, json=False)
    assert command.run(given) == 0
    assert f"done closed {state} to others" in capsys.readouterr().out
    assert command.run(given) == 0
    assert "done nothing was left to mend" in capsys.readouterr().out
    (state / "backup-x").mkdir()
    with alone(state):
        assert command.run(given) == 1
    assert "LEFT a service runs" in capsys.readouterr().out
