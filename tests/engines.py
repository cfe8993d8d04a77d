"""Engines for tests: a model that needs no weights, the engine in this very event loop, and in a process of its own.

`python tests/engines.py SOCKET SECONDS` is an engine whose model takes so long for each batch.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from scanner.contract import ModelInfo
from scanner.detection.faces import Face, Quality
from scanner.detection.model import SeenFace, SeenTile
from scanner.detection.tiles import TILE_PX
from scanner.engine.client import EngineClient, status
from scanner.engine.server import Engine, listening
from scanner.engine.waiting import Waiting
from scanner.engine.wire import Inspect, Look, Place
from scanner.errors import NoEngine
from scanner.settings import Settings
from scanner.verdict import Calibration

CALIBRATION = Calibration(slope=2.0, intercept=0.0, authentic=0.2, manipulated=0.8)
AGES = itertools.count()
LANDMARKS = np.arange(10, dtype=np.float32).reshape(5, 2)


def frame(value, width=16, height=12):
    """A frame of one brightness, 1..255; a black one has no face."""
    return np.full((height, width, 3), value, np.uint8)


def values(seen):
    """What each frame was, as the fake model saw it."""
    return [[round(255 * face.raw) for face in of_frame] for of_frame in seen]


def waiting(frames=1, **changes):
    fields = {
        "model_id": "fake",
        "frames": tuple(Place(16, 12, 0) for _ in range(frames)),
        "quarters": 0,
        "min_face_px": 40,
        "max_faces": 32,
        "urgent": True,
        "asked_s": float(next(AGES)),
        "losses": 0,
    }
    return Waiting(Look(**{**fields, **changes}), [frame(1)] * frames)


def inspecting(tiles=1, **changes):
    fields = {"model_id": "fake", "urgent": True, "asked_s": float(next(AGES)), "losses": 0}
    places = tuple(Place(TILE_PX, TILE_PX, 0) for _ in range(tiles))
    return Waiting(Inspect(**{**fields, "frames": places, **changes}), [frame(1, TILE_PX, TILE_PX)] * tiles)


class FakeModel:
    """Sees one face per frame that is not black, whose raw score is the frame's brightness."""

    detector = None

    def __init__(self, *, seconds=0.0, model_id="fake", fault=None, region_calibration=None):
        self.info = ModelInfo(model_id=model_id, backend="cpu", precision="fp32")
        self.calibration, self.region_calibration = CALIBRATION, region_calibration
        self.seconds = seconds
        self.fault = fault  # called with the frames of a batch; may raise
        self.batches = []  # brightnesses of each batch
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began = threading.Event()

    def warm_up(self):
        pass

    def see(self, frames, **_wishes):
        self.batches.append([int(one[0, 0, 0]) for one in frames])
        self.began.set()
        assert self.may_go_on.wait(30)
        time.sleep(self.seconds)
        if self.fault is not None:
            self.fault(frames)
        return [[self._face(one)] if one.any() else [] for one in frames]

    def see_tiles(self, tiles):
        return [SeenTile(face.raw, face.attention) for (face,) in self.see(tiles)]

    def _face(self, one):
        crop_to_frame = np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]])
        attention = np.full((16, 16), one.mean(), np.float32)
        face = Face((1.0, 2.0, 3.0, 4.5), LANDMARKS, 0.875)
        return SeenFace(face, Quality(0.5, ("blurred",)), crop_to_frame, float(one.mean() / 255), attention)


@contextlib.asynccontextmanager
async def running(model, path, settings=None):
    """The engine in this event loop; stopped as by a supervisor."""
    with listening(path) as listener:
        serving = asyncio.create_task(Engine(model, settings or Settings()).serve(listener))
        await asyncio.sleep(0)
        try:
            yield serving
        finally:
            model.may_go_on.set()
            if not serving.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait([serving])


def play(scenario):
    """Run it; what waits for ever is a failure and not a hang."""
    asyncio.run(asyncio.wait_for(scenario(), 60))


async def client_of(path, **settings):
    return await asyncio.to_thread(EngineClient.open, Settings(**settings), path=path)


async def status_of(path):
    return await asyncio.to_thread(status, path, timeout_s=10.0)


async def until(condition):
    """Wait for what happens in another task or thread."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.005)


class ForkedEngine:
    """An engine with the fake model in a fork of this process, which has torch already: at once instead of in seconds.

    Make it in a thread that runs no event loop.
    """

    def __init__(self, path, *, seconds):
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.closerange(3, 4096)  # what this process holds must not stay open in there
                with listening(path) as listener:
                    asyncio.run(Engine(FakeModel(seconds=seconds), Settings()).serve(listener))
                code = 0
            finally:
                os._exit(code)

    def end(self, number):
        """Out: the exit code."""
        os.kill(self.pid, number)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class EngineProcess:
    """An engine in a process of its own, with the fake model or by the command with the real one."""

    def __init__(self, path, *, seconds=None, environ=None):
        own = [sys.executable, __file__, str(path), str(seconds)]
        command = [sys.executable, "-m", "scanner.cli", "engine", "--socket", str(path)] if seconds is None else own
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **(environ or {})}
        self.path = path
        self.process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE)

    def wait_until_it_answers(self):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert self.process.poll() is None, self.process.stderr.read().decode()
            try:
                return status(self.path, timeout_s=end - time.monotonic())
            except NoEngine:
                time.sleep(0.05)
        msg = "the engine does not answer"
        raise AssertionError(msg)

    def end(self, number=signal.SIGKILL):
        """Out: the exit code and what it said."""
        self.process.send_signal(number)
        said = self.process.communicate(timeout=60)[1].decode()
        return self.process.returncode, said

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.end()
        self.process.stderr.close()


if __name__ == "__main__":
    with listening(Path(sys.argv[1])) as opened:
        asyncio.run(Engine(FakeModel(seconds=float(sys.argv[2])), Settings()).serve(opened))
