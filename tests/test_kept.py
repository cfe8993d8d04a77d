"""Answers are kept until Redis tells that a key of theirs changed: over real HTTP, with a real Redis behind it."""

import asyncio
import contextlib
import random
import signal
from collections import Counter

import pytest
import verdicts
from redis_server import start_redis
from service import MODEL, URL, served

from api import kept as kept_module
from api.app import connect
from api.kept import Kept
from api.line import Line
from scanner.cache.verdicts import VerdictCache
from scanner.contract import ModelInfo
from scanner.service.embedded import socket_url

FORGED = verdicts.still(verdicts.scored(verdicts.HIGH))
SHA256 = FORGED.media.sha256
PATH = f"/v1/verdicts?url={URL}"


@contextlib.asynccontextmanager
async def another_process(api):
    """What writes beside the API: a worker, a command, another API."""
    client = connect(api.service.settings.redis_url)
    try:
        yield VerdictCache(client)
    finally:
        await client.aclose()


async def until(condition):
    while not condition():  # noqa: ASYNC110 - what it looks at is no event
        await asyncio.sleep(0.005)


async def labels(api, path=PATH):
    return [verdict["label"] for verdict in (await api.ask("GET", path))[1]["verdicts"]]


async def keep_one(api):
    """One remembered URL that was asked for often enough to be kept."""
    await api.service.cache.announce(MODEL)
    await api.service.cache.remember(FORGED, url=URL, tenant="local")
    await until(lambda: api.service.changes.is_heard)
    question = ("local", PATH.partition("?")[2])
    while api.service.kept.answer(question) is None:  # the writes above may be told only now
        assert await labels(api) == ["manipulated"]
    return question


async def asked_of_redis(api):
    found = await api.service.redis.info("commandstats")
    return sum(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "get", "eval"))


def test_what_was_answered_is_answered_again_without_redis(serve):
    async def test(api):
        await keep_one(api)
        before = await asked_of_redis(api)
        assert [await labels(api) for _ in range(20)] == [["manipulated"]] * 20
        assert await asked_of_redis(api) == before

    serve(test)


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.forget(SHA256, model_id=MODEL.model_id),
        lambda cache: cache.forget_url(URL, tenant="local"),
        lambda cache: cache.announce(ModelInfo(model_id="next", backend="cpu", precision="fp32")),
        lambda cache: cache._redis.flushdb(),
        lambda cache: cache._redis.pexpire(f"m1:v:{MODEL.model_id}:{SHA256}", 1),
    ],
    ids=["forgotten", "url forgotten", "another model", "flushed", "expired"],
)
def test_what_another_process_changed_is_no_longer_answered(serve, change):
    async def test(api):
        question = await keep_one(api)
        async with another_process(api) as cache:
            await change(cache)
            await until(lambda: api.service.kept.answer(question) is None)

    serve(test)


def test_who_forgets_a_scan_is_not_told_of_it_in_the_next_breath(serve):
    async def test(api):
        id_ = await api.submit(URL)
        await keep_one(api)
        api.finish(id_, FORGED)
        assert (await api.ask("DELETE", f"/v1/scans/{id_}"))[0] == 200
        assert await labels(api) == []

    serve(test)


def test_what_was_judged_anew_is_told_anew(serve):
    async def test(api):
        question = await keep_one(api)
        authentic = verdicts.still(verdicts.scored(verdicts.LOW))
        async with another_process(api) as cache:
            await cache.remember(authentic, url=URL, tenant="local")
            await until(lambda: api.service.kept.answer(question) is None)
            assert await labels(api) == [authentic.label.value]

    serve(test)


def test_a_lost_connection_forgets_everything_and_a_new_one_goes_on(serve):
    async def test(api):
        question = await keep_one(api)
        tracking = api.service.changes
        await api.service.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: api.service.kept.answer(question) is None)
        await until(lambda: tracking.is_heard)
        await keep_one(api)

    serve(test)


def test_a_redis_that_is_silent_is_not_believed_and_fails_everyone_who_waits_at_once(tmp_path):
    async def test(api):
        await keep_one(api)
        server.send_signal(signal.SIGSTOP)
        await until(lambda: not api.service.changes.is_heard)
        model = {"tenant": "local", "model_id": MODEL.model_id}
        asked = [api.service.lookups.find(key, **model) for key in (URL, URL + "2")]
        assert all(isinstance(one, TimeoutError) for one in await asyncio.gather(*asked, return_exceptions=True))
        status, _, headers = await api.ask("GET", PATH)
        assert (status, "Retry-After" in headers) == (503, True)
        server.send_signal(signal.SIGCONT)
        await until(lambda: api.service.changes.is_heard)
        await keep_one(api)

    server = start_redis(tmp_path / "redis")
    try:
        served(socket_url(tmp_path / "redis"), tmp_path, test)
    finally:
        server.kill()
        server.wait()


def test_lookups_go_on_when_redis_was_started_anew_without_the_script(tmp_path):
    async def test(api):
        await keep_one(api)
        server.kill()
        server.wait()
        await until(lambda: not api.service.changes.is_heard)
        assert (await api.ask("GET", PATH))[0] == 503
        anew = start_redis(tmp_path / "redis")
        try:
            await until(lambda: api.service.changes.is_heard)
            await keep_one(api)
        finally:
            anew.kill()
            anew.wait()

    server = start_redis(tmp_path / "redis")
    served(socket_url(tmp_path / "redis"), tmp_path, test)


def test_a_line_answers_each_caller_its_own_and_takes_errors_one_at_a_time(redis_url):
    async def test():
        client = connect(redis_url)
        line = Line(client, "if KEYS[1] == 'bad' then return redis.error_reply('no') end return {KEYS[1], ARGV[1]}")
        keys = [f"k{n}" if n % 5 else "bad" for n in range(40)]
        found = await asyncio.gather(*(line([key], [str(n)]) for n, key in enumerate(keys)), return_exceptions=True)
        for n, (key, one) in enumerate(zip(keys, found, strict=True)):
            assert isinstance(one, Exception) if key == "bad" else one == [key.encode(), str(n).encode()]
        await line.aclose()
        await client.aclose()

    asyncio.run(test())


def test_answers_stand_on_all_of_their_keys_and_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr(kept_module, "MOST", 8)
    rng, kept, model = random.Random(5), Kept(), {}
    for number in range(4_000):
        question = ("tenant", str(rng.randrange(20)))
        if rng.random() < 0.6:
            keys = {b"%d" % rng.randrange(12) for _ in range(3)}
            kept.keep(question, b"%d" % number, keys, changes=kept.changes)
            model.pop(question, None)
            model[question] = (b"%d" % number, keys)
            if len(model) > 8:
                model.pop(next(iter(model)))
        else:
            key = b"%d" % rng.randrange(12)
            kept.change([key])
            model = {asked: one for asked, one in model.items() if key not in one[1]}
        assert {asked: kept.answer(asked) for asked in model} == {asked: body for asked, (body, _) in model.items()}
        assert kept.answer(question) == model.get(question, (None,))[0]
        assert Counter({key: len(on) for key, on in kept._standing_on.items()}) == Counter(
            key for _, keys in model.values() for key in keys
        )


def test_an_answer_from_before_a_change_is_not_kept():
    kept = Kept()
    before = kept.changes
    kept.change([b"other"])
    kept.keep(("", "q"), b"stale", [b"k"], changes=before)
    assert kept.answer(("", "q")) is None
