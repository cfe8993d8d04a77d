"""The engine that a command starts for itself: its faults are told at once, and it is gone when the command is."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
from crew import children
from engines import FakeModel, frame, play, running, until, values

from scanner.engine.client import EngineClient
from scanner.engine.own import engine_for
from scanner.errors import BadWeights, NoEngine
from scanner.settings import Settings


def born(before):
    return set(children(os.getpid())) - before


@pytest.fixture
def before():
    return set(children(os.getpid()))


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Nobody is at the socket, and an engine of our own would find no weights."""
    monkeypatch.setenv("LAESCAN_WEIGHTS", str(tmp_path / "none.safetensors"))
    return Settings(engine_socket=str(tmp_path / "engine.sock"), engine_timeout_s=3600.0)


async def no_thread_waits():
    """Those of `asyncio.to_thread` are joined when a program ends: one that waits for an engine would hold it up."""
    await asyncio.wait_for(asyncio.get_running_loop().shutdown_default_executor(), 30)


def test_wrong_weights_end_it_at_once_and_no_second_engine_is_tried(settings, before, caplog):
    async def scenario():
        with pytest.raises(BadWeights, match=r"none\.safetensors"):
            async with engine_for(settings):
                pytest.fail("no engine can judge without weights")
        await no_thread_waits()

    play(scenario)
    assert "starting it again" not in caplog.text
    assert not born(before)


def test_who_is_stopped_while_the_engine_starts_leaves_neither_it_nor_a_thread(settings, before, monkeypatch):
    began, wait = threading.Event(), EngineClient.open
    monkeypatch.setattr(EngineClient, "open", lambda *given, **more: began.set() or wait(*given, **more))

    async def scenario():
        entering = asyncio.create_task(engine_for(settings).__aenter__())
        await until(began.is_set)
        entering.cancel()
        await asyncio.wait([entering])
        await no_thread_waits()

    play(scenario)
    assert not born(before)


def test_an_engine_that_is_there_is_used_and_its_end_is_no_reason_to_start_another(settings):
    async def use():
        async with engine_for(settings) as client:
            assert values(await client.look([frame(3)])) == [[3]]
            msg = "it died three times"
            raise NoEngine(msg)

    async def scenario():
        async with running(FakeModel(), Path(settings.engine_socket)):
            with pytest.raises(NoEngine, match="it died three times"):
                await use()

    play(scenario)
