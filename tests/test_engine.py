"""The engine answers everyone, whoever fails beside them: clients that die or lie, models that break, signals."""

import asyncio
import contextlib
import gc
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from engines import (
    CALIBRATION,
    FakeModel,
    ForkedEngine,
    client_of,
    frame,
    inspecting,
    play,
    running,
    status_of,
    until,
    values,
    waiting,
)

from scanner.detection import tiles
from scanner.engine import server as engine
from scanner.engine import wire
from scanner.engine.server import listening
from scanner.errors import Internal, NoEngine, OutOfMemory
from scanner.settings import Settings


@pytest.fixture
def path(tmp_path):
    return tmp_path / "engine.sock"


def descriptors():
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def ask(path, request=None, memory=None):
    """A raw connection on which something was sent."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(wire.new_socket())
        connection.connect(str(path))
        if request is not None:
            wire.send(connection, request, memory)
        stack.pop_all()
    return connection


def ask_to_look(path, *brightnesses, **changes):
    memory, places = wire.packed([frame(value) for value in brightnesses])
    look = msgspec.structs.replace(waiting().look, frames=places, **changes)
    connection = ask(path, look, memory)
    os.close(memory)
    return connection


def is_listening(path):
    """Whether a connection is taken: the path is there from `bind` on, which is before `listen`."""
    try:
        ask(path).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    return True


async def heard(connection):
    """The next packet, decoded; None at the end."""
    connection.settimeout(30)
    data, descriptor = await asyncio.to_thread(wire.receive, connection)
    if descriptor is not None:
        os.close(descriptor)
    return msgspec.msgpack.decode(data, type=wire.Answer) if data else None


@contextlib.asynccontextmanager
async def busy_engine(path, settings=None, **options):
    """An engine whose model holds its first frame, of brightness 255, until it may go on."""
    model = FakeModel(**options)
    async with running(model, path, settings) as serving:
        client = await client_of(path)
        model.may_go_on.clear()
        first = asyncio.create_task(client.look([frame(255)]))
        await until(model.began.is_set)
        yield model, client, serving
        model.may_go_on.set()
        assert values(await first) == [[255]]


# ---------------------------------------------------------------- batches


def test_requests_that_wait_share_a_batch_and_nobodys_answer_is_anothers(path):
    async def scenario():
        async with busy_engine(path) as (model, client, _):
            looks = [asyncio.create_task(client.look([frame(10 * i), frame(10 * i + 1)])) for i in (1, 2)]
            while (await status_of(path)).queued < 2:
                pass
            model.may_go_on.set()
            assert [values(await look) for look in looks] == [[[10], [11]], [[20], [21]]]
            assert model.batches in (
                [[255], [10, 11, 20, 21]],
                [[255], [20, 21, 10, 11]],
            )  # who connects first is first

    play(scenario)


def test_who_waits_for_an_answer_goes_before_bulk(path):
    async def scenario():
        async with busy_engine(path) as (model, client, _):
            bulk = asyncio.create_task(client.look([frame(value) for value in range(1, 9)], urgent=False))
            while not (await status_of(path)).queued_bulk:
                pass
            urgent = asyncio.create_task(client.look([frame(100)]))
            while not (await status_of(path)).queued:
                pass
            model.may_go_on.set()
            assert values(await urgent) == [[100]]
            assert values(await bulk) == [[value] for value in range(1, 9)]
            assert model.batches[1][0] == 100

    play(scenario)


def test_status_tells_who_is_there_and_counts(path):
    async def scenario():
        async with running(FakeModel(model_id="m"), path):
            client = await client_of(path)
            await client.look([frame(1), frame(0)])
            status = await status_of(path)
            assert (status.info.model_id, status.calibration, status.pid) == ("m", client.calibration, os.getpid())
            assert (status.queued, status.queued_bulk, status.batch_s) == (0, 0, None)
            # the second look, at the black frame's shot, found the first one's face: no need to turn anything
            assert (status.batches, status.frames, status.faces, status.halvings) == (1, 2, 1, 0)
            assert status.worked_s >= 0
            assert status.up_s > 0

    play(scenario)


def test_a_full_queue_makes_clients_ask_again_and_all_are_answered(path):
    async def scenario():
        async with busy_engine(path, Settings(engine_max_queued=1)) as (model, client, _):
            looks = [asyncio.create_task(client.look([frame(value)])) for value in range(1, 7)]
            while (await status_of(path)).queued < 1:
                pass
            model.may_go_on.set()
            assert [values(await look) for look in looks] == [[[value]] for value in range(1, 7)]

    play(scenario)


# ---------------------------------------------------------------- whole pictures


def banded(height=600, width=800):
    """A picture whose brightness is its row / 4, so that every tile is another one."""
    return np.repeat(np.arange(height, dtype=np.uint8)[:, None, None] // 4, width, axis=1).repeat(3, axis=2)


def test_a_survey_through_the_engine_has_all_tiles_in_their_order(path):
    async def scenario():
        model = FakeModel(region_calibration=CALIBRATION)
        async with running(model, path):
            client = await client_of(path, regions=True)
            survey = await client.survey(banded())
            plan = tiles.plan(600, 800)
            cut = tiles.cut(banded(), plan)
            assert (survey.size, list(survey.tiles), survey.calibration) == ((600, 800), plan, CALIBRATION)
            assert [one.raw for one in survey.seen] == pytest.approx([float(tile.mean() / 255) for tile in cut])
            assert max(map(len, model.batches)) <= 4, "tiles go in small batches, too"
            status = await status_of(path)
            assert (status.tiles, status.frames, status.region_calibration) == (len(plan), 0, CALIBRATION)

    play(scenario)


def test_who_waits_for_a_face_does_not_sit_through_somebodys_tiles(path):
    async def scenario():
        async with busy_engine(path, region_calibration=CALIBRATION) as (model, client, _):
            survey = asyncio.create_task(client.survey(banded()))
            while not (await status_of(path)).queued:
                pass
            look = asyncio.create_task(client.look([frame(77)]))
            while (await status_of(path)).queued < 2:
                pass
            model.may_go_on.set()
            assert values(await look) == [[77]]
            assert len((await survey).seen) == len(tiles.plan(600, 800))
            assert [77] in model.batches[1:3]

    play(scenario)


def test_an_engine_without_the_second_checkpoint_surveys_nothing_and_says_so_to_who_needs_it(path):
    async def scenario():
        async with running(FakeModel(), path):
            assert await (await client_of(path)).survey(banded()) is None
            with pytest.raises(NoEngine, match="LAESCAN_REGIONS=true"):
                await client_of(path, regions=True)
            memory, places = wire.packed([frame(1, 256, 256)])
            with ask(path, msgspec.structs.replace(inspecting().look, frames=places), memory) as connection:
                assert "does not look at whole pictures" in (await heard(connection)).message
            os.close(memory)

    play(scenario)


def test_a_survey_outlives_its_engine(path):
    async def scenario():
        async with running(FakeModel(region_calibration=CALIBRATION), path, Settings(engine_drain_s=0.05)) as serving:
            client = await client_of(path)
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
        survey = asyncio.create_task(client.survey(banded()))
        async with running(FakeModel(region_calibration=CALIBRATION), path):
            assert len((await survey).seen) == len(tiles.plan(600, 800))

    play(scenario)


# ---------------------------------------------------------------- failures


def test_out_of_memory_halves_the_batch_and_the_engine_lives(path):
    def fault(frames):
        if len(frames) > 1 or frames[0][0, 0, 0] == 66:
            raise torch.OutOfMemoryError

    async def scenario():
        async with running(FakeModel(fault=fault), path):
            client = await client_of(path)
            assert values(await client.look([frame(value) for value in (1, 2, 3)])) == [[1], [2], [3]]
            with pytest.raises(OutOfMemory):
                await client.look([frame(1), frame(66)])
            assert values(await client.look([frame(4)])) == [[4]]
            assert (await status_of(path)).halvings >= 2

    play(scenario)


def test_what_breaks_the_model_fails_alone(path):
    def fault(frames):
        if any(one[0, 0, 0] == 66 for one in frames):
            raise ValueError(66)

    async def scenario():
        async with busy_engine(path, fault=fault) as (model, client, _):
            looks = [asyncio.create_task(client.look([frame(value)])) for value in (1, 66, 2)]
            while (await status_of(path)).queued < 3:
                pass
            model.may_go_on.set()
            good, bad, fine = await asyncio.gather(*looks, return_exceptions=True)
            assert (values(good), values(fine)) == ([[1]], [[2]])
            assert isinstance(bad, Internal)

    play(scenario)


def test_a_lost_device_ends_the_engine_and_the_next_one_answers(path):
    def fault(_frames):
        raise torch.AcceleratorError

    async def scenario():
        async with running(FakeModel(fault=fault), path) as serving:
            client = await client_of(path)
            look = asyncio.create_task(client.look([frame(5)]))
            await asyncio.wait([serving])
            assert isinstance(serving.exception(), torch.AcceleratorError)
        async with running(FakeModel(), path):
            assert values(await look) == [[5]]

    play(scenario)


def test_a_batch_that_hangs_ends_the_process(path):
    code = (
        "import asyncio, sys, pathlib, engines\n"
        "from scanner.settings import Settings\n"
        "with engines.listening(pathlib.Path(sys.argv[1])) as listener:\n"
        "    settings = Settings(engine_timeout_s=0.2)\n"
        "    asyncio.run(engines.Engine(engines.FakeModel(seconds=3600), settings).serve(listener))\n"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], env=environ, stderr=subprocess.PIPE) as process:

        async def scenario():
            await until(lambda: is_listening(path))
            with ask_to_look(path, 1) as connection:
                assert isinstance(await heard(connection), wire.Started)
                assert await heard(connection) is None

        play(scenario)
        assert process.wait(30) == os.EX_SOFTWARE
        assert b"does not end" in process.stderr.read()


# ---------------------------------------------------------------- clients that die or lie


def test_a_client_that_dies_leaves_nothing_behind(path):
    async def scenario():
        async with busy_engine(path) as (model, client, _):
            before = descriptors()
            dead = [ask_to_look(path, 10 + i) for i in range(5)] + [ask(path) for _ in range(3)]
            while (await status_of(path)).queued < 5:
                pass
            for connection in dead:
                connection.close()
            while (await status_of(path)).queued:
                pass
            await until(lambda: descriptors() == before)
            model.may_go_on.set()
            assert values(await client.look([frame(3)])) == [[3]]
            assert model.batches == [[255], [3]], "nobody waits for the dead ones' frames"

    play(scenario)


def test_a_client_that_dies_while_its_frames_are_looked_at_harms_nobody(path):
    async def scenario():
        model = FakeModel()
        async with running(model, path):
            client, before = await client_of(path), descriptors()
            model.may_go_on.clear()
            with ask_to_look(path, 7):
                await until(model.began.is_set)
            model.may_go_on.set()
            assert values(await client.look([frame(8)])) == [[8]]
            await until(lambda: descriptors() == before)

    play(scenario)


def lies(path):
    """Connections that say what was not agreed."""
    good = waiting().look
    memory, _ = wire.packed([frame(1)])
    unsealed = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 576)
    two_frames = msgspec.structs.replace(good, frames=(wire.Place(16, 12, 0), wire.Place(16, 12, 576)))
    with open(__file__, "rb") as file:  # noqa: PTH123 - a descriptor
        for request, beside in ((good, None), (good, unsealed), (good, file.fileno()), (two_frames, memory)):
            yield ask(path, request, beside)
    os.close(unsealed)
    os.close(memory)
    for data in (b"\xc1", b"\x00" * 60_000, msgspec.msgpack.encode({"type": "look"}), bytes(wire.PACKET_BYTES + 1)):
        connection = ask(path)
        connection.send(data)
        yield connection


def test_a_malformed_request_is_refused_without_harm(path, caplog):
    async def scenario():
        async with running(FakeModel(), path):
            client, before = await client_of(path), descriptors()
            for connection in lies(path):
                with connection:
                    answer = await heard(connection)
                    assert (answer.code, await heard(connection)) == ("internal", None)
            with ask_to_look(path, 1, model_id="other") as connection:
                assert (await heard(connection)).code == "model_changed"
            assert values(await client.look([frame(3)])) == [[3]]
            assert caplog.text.count("refused a request") == 8
            await until(lambda: descriptors() == before)

    play(scenario)


def test_who_talks_out_of_turn_is_cut_off(path):
    async def scenario():
        async with busy_engine(path):
            with ask_to_look(path, 1) as connection:
                while not (await status_of(path)).queued:
                    pass
                wire.send(connection, wire.Ask())
                assert await heard(connection) is None
            assert not (await status_of(path)).queued

    play(scenario)


def test_a_connection_that_says_nothing_is_closed(path, monkeypatch):
    monkeypatch.setattr(engine, "SILENCE_S", 0.05)

    async def scenario():
        async with running(FakeModel(), path):
            with ask(path) as connection:
                assert await heard(connection) is None

    play(scenario)


def test_too_many_connections_are_cut_off_and_the_rest_is_served(path, monkeypatch):
    monkeypatch.setattr(engine, "SPARE_CONNECTIONS", 2)

    async def scenario():
        async with running(FakeModel(), path, Settings(engine_max_queued=2)):
            silent = [ask(path) for _ in range(4)]
            with ask(path) as one_too_many:
                assert await heard(one_too_many) is None
            for connection in silent:
                connection.close()
            assert values(await (await client_of(path)).look([frame(1)])) == [[1]]

    play(scenario)


# ---------------------------------------------------------------- the place, and the end


def test_only_this_user_can_reach_the_socket(path):
    mask = os.umask(0)
    try:
        with listening(path.parent / "folder" / "engine.sock") as listener:
            made = Path(listener.getsockname())
            assert stat.S_IMODE(made.stat().st_mode) == 0o600
            assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    finally:
        os.umask(mask)
    assert not made.exists()


def test_a_second_engine_does_not_take_the_place_of_a_living_one(path):
    with listening(path), pytest.raises(NoEngine, match="already"), listening(path):
        pass


def test_sigterm_lets_what_waits_be_answered_and_nothing_new_in(path):
    async def scenario():
        async with busy_engine(path) as (model, client, serving):
            looks = [asyncio.create_task(client.look([frame(value)])) for value in range(1, 10)]
            while (await status_of(path)).queued < 9:
                pass
            os.kill(os.getpid(), signal.SIGTERM)
            await until(lambda: not is_listening(path))
            assert not any(look.done() for look in looks)
            model.may_go_on.set()
            assert [values(await look) for look in looks] == [[[value]] for value in range(1, 10)]
            await serving
        assert not path.exists()

    play(scenario)


def test_a_drain_ends_in_time_and_the_next_engine_answers_the_rest(path):
    async def scenario():
        async with running(model := FakeModel(), path, Settings(engine_drain_s=0.05)) as serving:
            client = await client_of(path)
            model.may_go_on.clear()
            looks = [asyncio.create_task(client.look([frame(1)] * 4))]
            await until(model.began.is_set)  # or the second may come first: each has a connection of its own
            looks.append(asyncio.create_task(client.look([frame(2)] * 4)))
            with ask_to_look(path, 3) as queued:
                while (await status_of(path)).queued < 2:
                    pass
                os.kill(os.getpid(), signal.SIGTERM)
                assert await heard(queued) is None, "hung up on, and so in the same moment is everybody"
            model.may_go_on.set()
            await serving
            assert model.batches == [[1] * 4]
        async with running(FakeModel(), path):
            assert [values(await look) for look in looks] == [[[1]] * 4, [[2]] * 4]

    play(scenario)


def test_killed_and_started_again_under_load_every_request_is_answered_once(path):
    async def scenario():
        forked = await asyncio.to_thread(ForkedEngine, path, seconds=0.01)
        client = await client_of(path)
        answers = []

        async def look(value):
            answers.append((value, values(await client.look([frame(value), frame(value + 1)], urgent=value % 2 == 0))))

        looks = [asyncio.create_task(look(value)) for value in range(1, 201)]
        for share in (20, 80, 150):
            await until(lambda share=share: len(answers) >= share)
            assert forked.end(signal.SIGKILL) == -signal.SIGKILL
            assert path.exists(), "a killed engine leaves its socket; the next must take its place"
            forked = await asyncio.to_thread(ForkedEngine, path, seconds=0.01)
            await client_of(path)  # it has the place, and its handlers of signals stand
        await asyncio.gather(*looks)
        assert sorted(answers) == [(value, [[value], [value + 1]]) for value in range(1, 201)]
        assert forked.end(signal.SIGTERM) == 0

    play(scenario)
