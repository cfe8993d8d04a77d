"""Remembered verdicts as a file: whole or refused, without URLs, and never newer than they are."""

import asyncio
import hashlib
import json
import time

import msgspec
import pytest
import redis.asyncio
from verdicts import HIGH, scored, still

from scanner.cache.archive import ArchiveError, export, inspect, take_in
from scanner.cache.verdicts import UNSURE_TTL_S, VERDICT_TTL_S, VerdictCache, packed
from scanner.cli import Exit, main
from scanner.contract import CacheInfo
from scanner.settings import Settings

URL = "https://example.org/a.jpg?token=s3cret"
FORGED, UNSURE = still(scored(HIGH, peak_at=(3, 4))), still(scored(0.5))


@pytest.fixture
def with_redis(redis_url):
    def run(work):
        async def connected():
            async with redis.asyncio.Redis.from_url(redis_url) as client:
                await client.flushall()
                return await work(client)

        return asyncio.run(connected())

    return run


def sha(number):
    return hashlib.sha256(b"%d" % number).hexdigest()


def on(number, verdict=FORGED, model_id="new"):
    media = msgspec.structs.replace(verdict.media, sha256=sha(number))
    return msgspec.structs.replace(
        verdict, media=media, model=msgspec.structs.replace(verdict.model, model_id=model_id)
    )


async def lines_of(client, is_meant=lambda _model_id: True):
    return [line async for line in export(client, is_meant)]


def written(path, *lines, count=None):
    """A file with these verdicts and a last line that is right for them."""
    head = {"laescan": "verdicts", "version": 1}
    body = b"".join(msgspec.json.encode(line) + b"\n" for line in (head, *lines))
    tail = {"count": len(lines) if count is None else count, "sha256": hashlib.sha256(body).hexdigest()}
    path.write_bytes(body + msgspec.json.encode(tail) + b"\n")
    return path


def line(number=1, **changes):
    verdict = json.loads(msgspec.json.encode(on(number)))
    return {"scope": "new", "stored_s": time.time() - 60, "verdict": verdict} | changes


# ---------------------------------------------------------------- there and back


def test_what_was_remembered_is_remembered_elsewhere_with_its_age(with_redis, tmp_path):
    path = tmp_path / "verdicts.jsonl"

    async def there(client):
        cache = VerdictCache(client, Settings(max_frames=32))
        for number in range(450):  # more than one step of SCAN, MGET and pipeline
            aged = msgspec.structs.replace(on(number), cache=CacheInfo(kind="exact", age_s=3600.0))
            await cache.remember(aged, url=URL, tenant="t", pixels=sha(number))
        await VerdictCache(client).remember(on(1, UNSURE, "old"))
        path.write_bytes(b"".join(await lines_of(client)))

    async def back(client):
        assert inspect(path) == 451
        assert await take_in(client, path, tenant="t") == (451, 0)
        assert await take_in(client, path, tenant="t") == (0, 451), "what is known stays"
        cache = VerdictCache(client, Settings(max_frames=32))
        found = await cache.by_sha256(sha(7), model_id="new")
        assert msgspec.structs.replace(found, cache=CacheInfo()) == on(7)
        assert 3600 <= found.cache.age_s < 4000
        assert await VerdictCache(client).by_sha256(sha(7), model_id="new") is None, "it was judged by other settings"
        assert (await VerdictCache(client).by_sha256(sha(1), model_id="old")).label == UNSURE.label
        key = f"m1:v:new,max_frames=32:{sha(7)}"
        assert VERDICT_TTL_S - 4000 < await client.ttl(key) <= VERDICT_TTL_S - 3600
        bits = f"{int(sha(7), 16):0256b}"[:40]
        assert [digest for digest, _ in await cache.by_prefix(bits, tenant="t", model_id="new")] == [sha(7)]
        assert await cache.by_prefix(bits, tenant="local", model_id="new") == []
        assert (await cache.stats())["remembered:new,max_frames=32"] == 450

    with_redis(there)
    assert b"s3cret" not in path.read_bytes()
    assert b"example.org" not in path.read_bytes()
    with_redis(back)


def test_a_verdict_lives_no_longer_for_having_travelled(with_redis, tmp_path):
    old = time.time() - UNSURE_TTL_S - 60
    unsure = json.loads(msgspec.json.encode(on(2, UNSURE)))
    path = written(tmp_path / "f", line(1, stored_s=old), line(2, stored_s=old, verdict=unsure))

    async def work(client):
        assert await take_in(client, path, tenant="t") == (1, 1)
        assert await client.exists(f"m1:v:new:{sha(2)}") == 0

    with_redis(work)


def test_only_what_a_lookup_would_believe_is_exported(with_redis):
    async def work(client):
        await VerdictCache(client).remember(on(1))
        await VerdictCache(client).remember(on(2, model_id="old"))
        await client.set(f"m1:v:new:{sha(3)}", b"\xc1")
        await client.set(f"m1:v:new:{sha(4)}", packed(on(5), 1.0))  # a verdict on something else
        lines = await lines_of(client, lambda model_id: model_id == "new")
        assert [json.loads(one)["verdict"]["media"]["sha256"] for one in lines[1:-1]] == [sha(1)]
        assert json.loads(lines[-1])["count"] == 1

    with_redis(work)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda whole: whole[:0], "line 1 is not"),
        (lambda whole: whole[: len(whole) // 2], "is not what laescan writes"),
        (lambda whole: whole.rsplit(b"\n", 2)[0] + b"\n", "cut off"),
        (lambda whole: whole.replace(b'"score":0.9', b'"score":0.1', 1), "was changed"),
        (lambda whole: whole + whole, "put together"),
        (lambda whole: whole.replace(b'"version":1', b'"version":2', 1), "of version 2, this laescan reads 1"),
        (lambda whole: b"row,url,label\n" + whole, "line 1 is not"),
        (lambda whole: whole.replace(b'"manipulated"', b'"perhaps"', 1), "line 2 is not"),
    ],
    ids=["empty", "half", "no end", "changed", "two", "version", "other", "label"],
)
def test_a_file_that_is_not_whole_is_refused_before_anything_is_taken_in(redis_url, tmp_path, capsys, spoil, words):
    path = written(tmp_path / "verdicts.jsonl", line(1), line(2))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ArchiveError, match=words):
        inspect(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "other"},
        {"scope": "new:m1"},
        {"stored_s": -1},
        {"stored_s": 4e9},
        {"added": 1},
        {"verdict": None},
    ],
    ids=str,
)
def test_a_line_that_no_scan_could_have_led_to_is_refused(tmp_path, changes):
    with pytest.raises(ArchiveError, match="line 3"):
        inspect(written(tmp_path / "f", line(1), line(2, **changes)))


@pytest.mark.parametrize(
    ("path", "value"),
    [(("score",), 1.5), (("media", "sha256"), "../../etc"), (("version",), 7), (("model", "model_id"), "other")],
    ids=str,
)
def test_a_verdict_that_no_scan_could_have_given_is_refused(tmp_path, path, value):
    spoilt = line(1)
    inner = spoilt["verdict"]
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    with pytest.raises(ArchiveError, match="line 2 holds no verdict that a scan could have given"):
        inspect(written(tmp_path / "f", spoilt))


def test_a_count_that_is_wrong_is_refused(tmp_path):
    with pytest.raises(ArchiveError, match="put together"):
        inspect(written(tmp_path / "f", line(1), count=2))


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(redis_url, monkeypatch, capsys, with_redis):
    async def two_models(client):
        cache = VerdictCache(client)
        for number, model_id in ((1, "new"), (2, "new"), (3, "old")):
            await cache.remember(on(number, model_id=model_id), url=URL, pixels=sha(number))
        await cache.announce(on(1).model)

    with_redis(two_models)
    monkeypatch.setenv("LAESCAN_CACHE_URL", redis_url)

    def run(*arguments):
        code = main(["cache", *map(str, arguments)])
        return code, capsys.readouterr()

    return run


def remembered(command):
    return json.loads(command("stats", "--json")[1].out)["verdicts"]


def test_the_command_counts_exports_purges_and_takes_in(command, tmp_path):
    path = tmp_path / "verdicts.jsonl"
    _, said = command("stats")
    assert "judging now: new" in said.out
    assert "2 verdicts by new\n" in said.out
    assert "1 verdicts by old (no longer asked for)" in said.out
    assert "1 urls\n" in said.out, "one URL led to all three"
    assert "3 pixels\n" in said.out
    assert "remembered" not in said.out, "the verdicts themselves were counted"
    assert command("export", path)[1].err == f"3 verdicts written to {path}\n"
    assert path.stat().st_mode & 0o077 == 0
    assert command("purge", "--all")[1].err == "3 verdicts forgotten\n"
    assert remembered(command) == {}
    assert command("import", path)[1].err == "3 verdicts taken in, 0 known already or too old\n"
    assert remembered(command) == {"new": 2, "old": 1}


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--old-models"], {"new": 2}),
        (["--model", "new"], {"old": 1}),
        (["--older-than", "1h"], {"new": 2, "old": 1}),
        (["--older-than", "0h"], {}),
    ],
    ids=" ".join,
)
def test_a_purge_takes_what_is_meant_and_leaves_the_rest(command, arguments, left):
    assert command("purge", *arguments)[0] == Exit.OK
    assert remembered(command) == left
    counters = json.loads(command("stats", "--json")[1].out)["counters"]
    assert {name.partition(":")[2] for name in counters if name.startswith("remembered")} <= {"new", "old"}
    assert json.loads(command("stats", "--json")[1].out)["model"]["model_id"] == "new", "the API asks for it"


def test_what_is_wrong_is_told_with_its_code(command, tmp_path, monkeypatch):
    (tmp_path / "odd").write_text("odd\n")
    code, said = command("import", tmp_path / "odd")
    assert (code, "is not taken in: line 1" in said.err) == (Exit.USAGE, True)
    assert command("import", tmp_path / "nowhere")[0] == Exit.USAGE
    assert command("export", tmp_path / "no" / "folder")[0] == Exit.USAGE
    for wrong in (["purge"], ["purge", "--all", "--old-models"], ["purge", "--older-than", "soon"]):
        with pytest.raises(SystemExit) as exited:
            command(*wrong)
        assert exited.value.code == Exit.USAGE
    monkeypatch.setenv("LAESCAN_CACHE_URL", f"unix://{tmp_path}/none.sock")
    assert command("stats")[0] == Exit.NO_ENGINE


def test_a_broken_export_leaves_the_old_file(command, tmp_path, monkeypatch):
    path = tmp_path / "verdicts.jsonl"
    path.write_text("the one of yesterday")
    monkeypatch.setenv("LAESCAN_CACHE_URL", f"unix://{tmp_path}/none.sock")
    assert command("export", path)[0] == Exit.NO_ENGINE
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the one of yesterday"]
