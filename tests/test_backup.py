"""Backup and restore: what was promised before is kept after, and a file that is not whole restores nothing."""

import asyncio
import hashlib
import io
import json
import stat
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import redis.asyncio
from redis_server import redis_in
from test_archive import on, sha

from scanner.cache.verdicts import VerdictCache
from scanner.cli import Exit, main
from scanner.contract import Outcome, ScanRequest
from scanner.receipts import Signer
from scanner.service.backup import BackupError, back_up, restore
from scanner.service.embedded import service_url
from scanner.service.lease import Lease, accept
from scanner.service.ledger import Ledger
from scanner.service.serve import alone
from scanner.settings import Settings

UPLOAD = b"an upload that waits"
NAME = hashlib.sha256(UPLOAD).hexdigest()


@pytest.fixture
def tmp_path():
    """A folder with a short name: a restored Redis has its socket deep inside, and those end at 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="b-") as folder:
        yield Path(folder)


def settings_in(folder):
    folder.mkdir(exist_ok=True)
    return Settings(state=str(folder))


@contextmanager
def lived_in(settings):
    """A service that has done something, waits for something, and still runs; out: the ids of its scans."""
    with redis_in(redis_folder(settings)) as url, redis.Redis.from_url(url) as client:
        done, _ = accept(client, ScanRequest(source_url="https://example.org/a.jpg", tenant="t"))
        Lease.start(client, done, owner="w").finish(Outcome(source="a", verdict=on(1)), settings)
        running, _ = accept(client, ScanRequest(source_url="https://example.org/b.jpg", tenant="t"))
        Lease.start(client, running, owner="w")
        waiting, _ = accept(client, ScanRequest(upload=NAME, tenant="t"))
        client.set("laescan:tally:odd", bytes(range(256)))
        (state(settings) / "spool").mkdir()
        (state(settings) / "spool" / NAME).write_bytes(UPLOAD)
        (state(settings) / "spool" / "partial-x").write_bytes(b"half an upload")
        asyncio.run(remember(url, on(2)))
        yield done, running, waiting


def state(settings):
    return Path(settings.state)


def redis_folder(settings):
    return state(settings) / "redis"


async def remember(url, verdict):
    async with redis.asyncio.Redis.from_url(url) as client:
        await VerdictCache(client).remember(verdict)


def rows(url, ids):
    async def read():
        async with redis.asyncio.Redis.from_url(url) as client:
            found = await Ledger(client).get_many(ids, tenant="t")
            return found, await VerdictCache(client).by_sha256(sha(2), model_id="new")

    return asyncio.run(read())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A backup of a running service, its key, and the ids that it must bring back."""
    folder = tmp_path_factory.mktemp("made")
    settings = settings_in(folder / "state")
    pem = Signer(settings).public_pem()
    with lived_in(settings) as ids:
        copied = back_up(settings, folder / "backup.tar")
        assert copied.uploads == 1
        left = {path.name for path in state(settings).iterdir()}
        assert left == {"redis", "spool", "receipt.key"}, "nothing of the backup stays"
        assert not (state(settings) / "redis" / "dump.rdb").exists()
    return folder / "backup.tar", pem, ids, settings


def test_all_that_was_promised_is_there_after_a_restore_elsewhere(made, tmp_path):
    path, pem, (done, running, waiting), _ = made
    settings = settings_in(tmp_path / "new")
    assert restore(settings, path).uploads == 1
    assert {one.name for one in state(settings).iterdir()} == {"redis", "spool", "receipt.key", "serve.lock"}
    assert Signer(settings).public_pem() == pem, "old receipts and new ones have one key"
    assert (state(settings) / "spool" / NAME).read_bytes() == UPLOAD
    for _ in range(2):  # the second start reads what the first has written down
        with redis_in(redis_folder(settings)) as url:
            (first, second, third), verdict = rows(url, [done, running, waiting])
            assert first.outcome.verdict.media.sha256 == sha(1)
            assert (second.state, third.state) == ("running", "queued")
            assert verdict.label == on(2).label
            with redis.Redis.from_url(url) as client:
                assert client.get("laescan:tally:odd") == bytes(range(256))
                assert client.config_get("appendonly") in ({b"appendonly": b"yes"}, {"appendonly": "yes"})
                client.zadd("laescan:leases", {running: 1})
                assert [one.id for one in Lease.take_expired(client, most=9)][:1] == [running], "and is given back"


def test_a_service_that_is_stopped_is_backed_up_too(made, tmp_path):
    _, _, (done, *_), settings = made
    back_up(settings, tmp_path / "cold.tar")
    fresh = settings_in(tmp_path / "new")
    restore(fresh, tmp_path / "cold.tar")
    assert service_url(fresh).endswith("/new/redis/redis.sock")
    with redis_in(redis_folder(fresh)) as url:
        assert rows(url, [done])[0][0].state == "done"


def test_a_backup_is_for_us_alone(made):
    path, *_ = made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert sorted(names) == sorted(["redis/dump.rdb", f"spool/{NAME}", "receipt.key", "manifest.json"])
    assert names[-1] == "manifest.json"


# ---------------------------------------------------------------- what is refused


def rewritten(path, target, change):
    """The same tar with its members changed by name: bytes, or None to leave one out."""
    with tarfile.open(path) as old, tarfile.open(target, "w") as new:
        members = {member.name: old.extractfile(member).read() for member in old}
        for name, data in change(members).items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return target


def moved(members, name, data):
    return {name: data, **members}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: {**m, "receipt.key": b"another"}, "cut off or changed"),
        (lambda m: {k: v for k, v in m.items() if k != "redis/dump.rdb"}, "cut off or changed"),
        (lambda m: {k: v for k, v in m.items() if k != "manifest.json"}, "cut off or changed"),
        (lambda m: moved(m, "../../evil", b"x"), "holds '../../evil'"),
        (lambda m: moved(m, "/etc/cron.d/evil", b"x"), "holds '/etc/cron.d/evil'"),
        (lambda m: {**m, "spool/" + "0" * 64: b"after the manifest"}, "which no backup does"),
        (lambda m: {**m, "manifest.json": b"{}"}, "no backup, or a piece of one"),
        (lambda m: {**m, "manifest.json": json.dumps({"laescan_backup": 2}).encode()}, "no backup"),
    ],
    ids=["changed", "no redis", "no manifest", "climbing", "absolute", "late", "empty", "version"],
)
def test_what_no_backup_holds_is_refused_and_leaves_nothing(made, tmp_path, change, words):
    path = rewritten(made[0], tmp_path / "odd.tar", change)
    settings = settings_in(tmp_path / "new")
    with pytest.raises(BackupError, match=words):
        restore(settings, path)
    assert {one.name for one in state(settings).iterdir()} <= {"serve.lock", "spool"}
    assert list((state(settings) / "spool").iterdir()) == []


def test_a_snapshot_that_redis_cannot_read_is_refused(made, tmp_path):
    def newer(members):
        members["redis/dump.rdb"] = b"REDIS9999" + members["redis/dump.rdb"][9:]
        manifest = json.loads(members["manifest.json"])
        manifest["files"]["redis/dump.rdb"] = hashlib.sha256(members["redis/dump.rdb"]).hexdigest()
        return {**members, "manifest.json": json.dumps(manifest).encode()}

    settings = settings_in(tmp_path / "new")
    with pytest.raises(BackupError, match="newer Redis, or corrupt"):
        restore(settings, rewritten(made[0], tmp_path / "newer.tar", newer))
    assert not (state(settings) / "redis").exists()


@pytest.mark.parametrize("until", [b"", b"redis/dump.rdb", b"REDIS0", b"spool/", b"manifest.json", b"laescan_backup"])
def test_a_piece_is_refused(made, tmp_path, until):
    whole = made[0].read_bytes()
    (tmp_path / "piece").write_bytes(whole[: whole.index(until) + len(until)])
    with pytest.raises(BackupError, match=r"piece of one|cut off"):
        restore(settings_in(tmp_path / "new"), tmp_path / "piece")


def test_nothing_is_overwritten_and_nothing_is_restored_under_a_running_service(made, tmp_path):
    path, _, _, used = made
    with pytest.raises(BackupError, match="is there already: move it away"):
        restore(used, path)
    fresh = settings_in(tmp_path / "new")
    with alone(state(fresh)):
        assert main_with(fresh, "restore", path) == Exit.USAGE


def main_with(settings, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAESCAN_STATE", settings.state)
        return main([str(one) for one in arguments])


def test_the_commands_say_what_they_did(made, tmp_path, capsys):
    assert main_with(made[3], "backup", tmp_path / "b.tar") == Exit.OK
    assert "1 uploads" in capsys.readouterr().err
    assert main_with(settings_in(tmp_path / "new"), "restore", tmp_path / "b.tar") == Exit.OK
    assert "restored from" in capsys.readouterr().err
    assert main_with(settings_in(tmp_path / "none"), "backup", tmp_path / "c.tar") == Exit.USAGE
    assert "has not run there" in capsys.readouterr().err
    assert not (tmp_path / "c.tar").exists()


def test_a_redis_of_ones_own_is_left_to_its_own_means(tmp_path):
    named = Settings(state=str(tmp_path), redis_url="redis://127.0.0.1:1/0")
    for work in (back_up, restore):
        with pytest.raises(BackupError, match="by its own means"):
            work(named, tmp_path / "b.tar")
