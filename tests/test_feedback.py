"""Reports that a verdict is wrong, over real HTTP: taken, replaced, withdrawn, listed, and nobody else's business."""

import msgspec
import verdicts
from service import URL

from api.feedback_command import run
from scanner import cli
from scanner.settings import Settings

FORGED = verdicts.still(verdicts.scored(verdicts.HIGH))


def test_a_report_stands_beside_the_verdict_that_it_is_about(serve, redis_url):
    async def test(api):
        id_ = await api.submit()
        api.finish(id_, FORGED)
        body = {"expected": "authentic", "note": "my own holiday picture"}
        status, told, _ = await api.ask("POST", f"/v1/scans/{id_}/feedback", json=body)
        assert status == 201
        assert {**told, **body} == told
        assert (told["source"], told["label"], told["score"]) == (URL, "manipulated", FORGED.score)
        assert (told["sha256"], told["model_id"]) == (FORGED.media.sha256, FORGED.model.model_id)

    serve(test)
    (line,) = run(Settings(redis_url=redis_url))
    assert msgspec.json.decode(line)["note"] == "my own holiday picture"


def test_a_later_report_takes_the_place_of_the_first_and_is_forgotten_in_time(serve, redis_url):
    async def test(api):
        id_ = await api.submit()
        api.finish(id_, FORGED)
        for expected in ("other", "authentic"):
            await api.ask("POST", f"/v1/scans/{id_}/feedback", json={"expected": expected})
        (place,) = await api.service.redis.keys("laescan:feedback:*")
        assert 0 < await api.service.redis.ttl(place) <= 60

    serve(test, feedback_ttl_s=60)
    (line,) = run(Settings(redis_url=redis_url))
    assert msgspec.json.decode(line)["expected"] == "authentic"


def test_only_a_verdict_can_be_wrong(serve):
    async def test(api):
        id_ = await api.submit()
        good = {"expected": "authentic"}
        for path in (id_, "0" * 32):
            assert (await api.ask("POST", f"/v1/scans/{path}/feedback", json=good))[0] == 404
        api.finish(id_, FORGED)
        for bad in ({}, {"expected": "fake"}, {**good, "note": "x" * 1001}, {**good, "score": 0.1}):
            assert (await api.ask("POST", f"/v1/scans/{id_}/feedback", json=bad))[0] == 422

    serve(test)


def test_a_report_can_be_taken_back_and_is_nobody_elses(serve, redis_url):
    async def test(api):
        mine, theirs = await api.token(tenant="a"), await api.token(tenant="b")
        scan = (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=mine))[1]
        api.finish(scan["id"], FORGED)
        path = f"/v1/scans/{scan['id']}/feedback"
        assert (await api.ask("POST", path, json={"expected": "other"}, headers=theirs))[0] == 404
        assert (await api.ask("DELETE", path, headers=mine))[0] == 404
        assert (await api.ask("POST", path, json={"expected": "other"}, headers=mine))[0] == 201
        assert (await api.ask("DELETE", path, headers=theirs))[0] == 404
        # run() opens a loop of its own: the list is asked for after this one has ended, below

    serve(test)
    settings = Settings(redis_url=redis_url)
    assert len(run(settings, tenant="a")) == 1
    assert run(settings, tenant="b") == []

    async def withdraw(api):
        mine = await api.token(tenant="a")
        scan = (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=mine))[1]
        api.finish(scan["id"], FORGED)
        path = f"/v1/scans/{scan['id']}/feedback"
        await api.ask("POST", path, json={"expected": "other"}, headers=mine)
        assert (await api.ask("DELETE", path, headers=mine))[0] == 200

    serve(withdraw)
    assert run(settings) == []


def test_the_command_prints_lines_and_says_what_is_missing_without_redis(serve, redis_url, monkeypatch, capsys):
    async def test(api):
        id_ = await api.submit()
        api.finish(id_, FORGED)
        await api.ask("POST", f"/v1/scans/{id_}/feedback", json={"expected": "authentic"})

    serve(test)
    monkeypatch.setenv("LAESCAN_REDIS_URL", redis_url)
    assert cli.main(["feedback"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out)["tenant"] == "local"
    monkeypatch.setenv("LAESCAN_REDIS_URL", "redis://127.0.0.1:1/0")
    assert cli.main(["feedback"]) == 4
    assert "laescan serve" in capsys.readouterr().err
