"""Through the client an engine is a model like any other: same scores, no torch, and its deaths are its own affair."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import models
import msgspec
import numpy as np
import pytest
import torch
from engines import EngineProcess, FakeModel, client_of, frame, play, running, status_of, until, values
from PIL import Image

from scanner.cli import main
from scanner.detection.local_model import LocalModel
from scanner.engine import wire
from scanner.engine.client import MOST_LOSSES, EngineClient, status
from scanner.engine.server import listening
from scanner.errors import ModelChanged, NoEngine
from scanner.settings import Settings

MEDIA = Path(__file__).parent / "media"
SCAN_WITHOUT_TORCH = """
import asyncio, json, pathlib, sys
from scanner.engine.client import EngineClient
from scanner.pipeline import Scanner
from scanner.settings import Settings

async def scan_all(scanner):
    results = [await scanner.scan(source) for source in sys.argv[2:]]
    return [{"label": r.outcome.verdict.label, "score": r.outcome.verdict.score} for r in results]

settings = Settings()
with Scanner(settings, model=EngineClient.open(settings, path=pathlib.Path(sys.argv[1]))) as scanner:
    print(json.dumps(asyncio.run(scan_all(scanner))))
assert not [name for name in sys.modules if name.partition(".")[0] in {"torch", "safetensors"}]
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "engine.sock"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """For faces and for whole pictures, which share nothing."""
    folder = tmp_path_factory.mktemp("weights")
    return models.random_checkpoint(folder), models.random_checkpoint(folder, name="whole", seed=1)


@pytest.fixture(scope="module")
def real_engine(tmp_path_factory, weights):
    environ = {"LAESCAN_WEIGHTS": str(weights[0]), "LAESCAN_REGION_WEIGHTS": str(weights[1])}
    environ |= {"LAESCAN_REGIONS": "true", "LAESCAN_THREADS": "1"}
    with EngineProcess(tmp_path_factory.mktemp("engine") / "engine.sock", environ=environ) as process:
        process.wait_until_it_answers()
        yield process


@pytest.fixture(scope="module")
def local(weights):
    threads = torch.get_num_threads()
    faces, whole = map(str, weights)
    with LocalModel.load(Settings(weights=faces, regions=True, region_weights=whole, threads=1)) as model:
        yield model
    torch.set_num_threads(threads)


def pixels(name, quarters=0):
    return np.rot90(np.asarray(Image.open(MEDIA / name).convert("RGB")), quarters)


# ---------------------------------------------------------------- the real model


def test_a_whole_scan_through_the_engine_never_loads_torch(real_engine, local):
    sources = [str(path) for path in sorted(MEDIA.glob("*.jpg"))]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", SCAN_WITHOUT_TORCH, str(real_engine.path), *sources]
    verdicts = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True).stdout)
    assert len(verdicts) == len(sources)
    (face,) = local.see([pixels(Path(sources[-1]).name)])[0]
    expected = 1 / (1 + np.exp(-local.calibration.log_odds(face.raw)))
    assert verdicts[-1]["score"] == pytest.approx(expected, abs=1e-5)


def test_the_engine_sees_what_the_local_model_sees(real_engine, local):
    shots = [
        [pixels("fellow_1.jpg"), pixels("fellow_2.jpg")],
        [pixels("london_1.jpg")],
        [pixels("fellow_3.jpg", 1)],  # on its side: found on a second look
        [np.zeros((40, 60, 3), np.uint8)],
    ]

    async def through_the_engine():
        client = await client_of(real_engine.path)
        assert (client.info, client.calibration) == (local.info, local.calibration)
        return await asyncio.gather(*(client.look(shot, urgent=i % 2 == 0) for i, shot in enumerate(shots)))

    async def here():
        return [await local.look(shot) for shot in shots]

    there, here = asyncio.run(through_the_engine()), asyncio.run(here())
    assert [[len(of_frame) for of_frame in shot] for shot in there] == [[1, 1], [1], [1], [0]]
    for one, other in zip(faces_of(there), faces_of(here), strict=True):
        assert one.face.box == pytest.approx(other.face.box, abs=1e-2)
        assert one.raw == pytest.approx(
            other.raw, abs=1e-3
        )  # a batch of others moves a box, and that the crop: 3e-5 seen
        assert np.allclose(one.attention, other.attention, atol=1e-3)
        assert np.allclose(one.crop_to_frame, other.crop_to_frame, atol=1e-2)
        assert one.quality.warnings == other.quality.warnings


def test_a_survey_through_the_engine_is_that_of_the_local_model(real_engine, local):
    picture = pixels("london_1.jpg")

    async def both():
        return await (await client_of(real_engine.path)).survey(picture), await local.survey(picture)

    there, here = asyncio.run(both())
    assert (there.tiles, there.size, there.calibration) == (here.tiles, here.size, here.calibration)
    assert [one.raw for one in there.seen] == pytest.approx([one.raw for one in here.seen], abs=1e-5)
    assert np.allclose(there.heat(), here.heat(), atol=1e-5)


def faces_of(shots):
    return [face for shot in shots for of_frame in shot for face in of_frame]


def test_the_command_tells_how_the_engine_is(real_engine, capsys, path):
    assert main(["engine", "--socket", str(real_engine.path), "--status"]) == 0
    assert json.loads(capsys.readouterr().out)["pid"] == real_engine.process.pid
    assert main(["engine", "--socket", str(path), "--status"]) == 4
    assert "no_engine" in capsys.readouterr().err


# ---------------------------------------------------------------- engines that are not there, or die


def test_without_an_engine_it_says_what_to_start(path):
    with pytest.raises(NoEngine, match="laescan serve"):
        EngineClient.open(Settings(engine_timeout_s=0.1), path=path)


STRANGER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
    listener.bind(sys.argv[1])
    if os.getuid() == 0:
        os.setuid(65534)
    listener.listen()
    print("there", flush=True)
    connection, _ = listener.accept()
    sys.exit(len(connection.recv(1000)))
"""


def test_an_engine_of_another_user_is_shown_nothing(path, monkeypatch):
    if os.getuid():
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with subprocess.Popen([sys.executable, "-c", STRANGER, str(path)], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout.readline() == b"there\n"
        with pytest.raises(NoEngine, match="of another user"):
            status(path, timeout_s=30.0)
        assert stranger.wait(30) == 0


def test_it_waits_for_an_engine_that_starts(path):
    async def scenario():
        opening = asyncio.create_task(client_of(path))
        await asyncio.sleep(0.05)
        async with running(FakeModel(), path):
            assert values(await (await opening).look([frame(3)])) == [[3]]

    play(scenario)


def test_a_look_without_an_answer_in_time_is_an_error_and_not_a_hang(path):
    async def scenario():
        async with running(FakeModel(), path):
            client = EngineClient(path, Settings(engine_timeout_s=0.3), await status_of(path))
        with pytest.raises(NoEngine, match=r"within 0.3 s"):
            await client.look([frame(3)])

    play(scenario)


def test_another_model_is_not_mixed_into_a_scan(path):
    async def scenario():
        async with running(FakeModel(model_id="old"), path):
            client = await client_of(path)
        async with running(FakeModel(model_id="new"), path):
            with pytest.raises(ModelChanged, match="new"):
                await client.look([frame(3)])
            assert values(await (await client_of(path)).look([frame(3)])) == [[3]]

    play(scenario)


@contextlib.asynccontextmanager
async def impostor(path, *answers):
    """Answers each look with these packets and hangs up; out: the headers that it was sent."""
    heard = []

    def accept(listener):
        with contextlib.suppress(BlockingIOError):
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                data, descriptor = wire.receive(connection)
                os.close(descriptor)
                heard.append(msgspec.msgpack.decode(data, type=wire.Request))
                for answer in answers:
                    connection.send(answer if isinstance(answer, bytes) else msgspec.msgpack.encode(answer))

    with listening(path) as listener:
        asyncio.get_running_loop().add_reader(listener, accept, listener)
        yield heard
        asyncio.get_running_loop().remove_reader(listener)


async def client_of_fake(path, **settings):
    async with running(FakeModel(), path):
        return await client_of(path, **settings)


def test_what_kills_every_engine_is_given_up(path):
    async def scenario():
        client = await client_of_fake(path)
        async with impostor(path, wire.Started()) as heard:
            with pytest.raises(NoEngine, match="died 3 times"):
                await client.look([frame(3)])
        assert [look.losses for look in heard] == [*range(MOST_LOSSES)]
        assert len({look.asked_s for look in heard}) == 1, "asking again keeps the place in the queue"

    play(scenario)


def test_engines_that_die_before_they_begin_are_not_counted(path):
    async def scenario():
        client = await client_of_fake(path)
        async with impostor(path) as heard:
            look = asyncio.create_task(client.look([frame(3)]))
            await until(lambda: len(heard) > MOST_LOSSES)
        async with running(FakeModel(), path):
            assert values(await look) == [[3]]
        assert not any(look.losses for look in heard)

    play(scenario)


@pytest.mark.parametrize("answer", [b"\xc1", wire.Done()], ids=["noise", "no faces"])
def test_an_answer_that_makes_no_sense_is_an_error(path, answer):
    async def scenario():
        client = await client_of_fake(path)
        async with impostor(path, answer):
            with pytest.raises(wire.WireError):
                await client.look([frame(3)])

    play(scenario)


def test_a_cancelled_look_is_forgotten_by_the_engine(path):
    async def scenario():
        model = FakeModel()
        async with running(model, path):
            client = await client_of(path)
            model.may_go_on.clear()
            first = asyncio.create_task(client.look([frame(1)]))
            await until(model.began.is_set)
            second = asyncio.create_task(client.look([frame(2)]))
            while not (await status_of(path)).queued:
                pass
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            model.may_go_on.set()
            assert values(await first) == [[1]]
            assert values(await client.look([frame(3)])) == [[3]]
            assert model.batches == [[1], [3]]

    play(scenario)
