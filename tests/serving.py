"""The whole service in a folder, as `laescan serve` runs it, with a model that tells two given pictures apart."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from browsing import HOST, OTHER_HOST
from crew import children
from models import random_checkpoint
from PIL import Image
from ports import free_port

from api import feedback_command
from scanner.detection.local_model import LocalModel
from scanner.settings import Settings
from scanner.verdict import Calibration

START_S = 180.0


def split_checkpoint(folder, low, high):
    """Random weights, calibrated so that one picture is surely manipulated and the other surely authentic.

    Returns the path, and which of the two is the manipulated one.
    """
    path = random_checkpoint(folder)
    frames = [np.asarray(Image.open(picture).convert("RGB")) for picture in (low, high)]
    with LocalModel.load(Settings(weights=str(path))) as model:
        (first,), (second,) = asyncio.run(model.look(frames))
    slope = 12 / abs(first.raw - second.raw)
    middle = slope * (first.raw + second.raw) / 2
    calibration = Calibration(slope=slope, intercept=-middle, authentic=0.1, manipulated=0.9)
    order = (low, high) if first.raw < second.raw else (high, low)
    return random_checkpoint(folder, calibration=calibration), order


class Service:
    """`laescan serve` until `stop`."""

    def __init__(self, folder, weights):
        self.url = f"http://127.0.0.1:{free_port()}"
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LAESCAN_")},
            "LAESCAN_STATE": str(folder),
            "LAESCAN_WEIGHTS": str(weights),
            "LAESCAN_API_PORT": self.url.rpartition(":")[2],
            "LAESCAN_ALLOW_NETWORKS": f"{HOST}/32,{OTHER_HOST}/32",
            "LAESCAN_WORKERS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        }
        self.log = (folder / "log").open("wb")
        command = [sys.executable, "-m", "scanner.cli", "serve"]
        self.process = subprocess.Popen(command, env=environ, stdout=self.log, stderr=self.log)

    def wait(self):
        """Until an engine is there."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None and b"bad_weights" not in self._said():
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return json.load(answer)
            time.sleep(0.1)
        pytest.fail(self._said().decode())

    def _said(self):
        return Path(self.log.name).read_bytes()

    @contextlib.contextmanager
    def without_api(self):
        """It is killed, and its supervisor starts another one when the block ends."""
        (pid,) = (
            pid for pid in children(self.process.pid) if b"\0-m\0api" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def feedback(self):
        """The reports that verdicts are wrong."""
        settings = Settings(state=str(Path(self.log.name).parent))
        with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
            return [json.loads(line) for line in thread.submit(feedback_command.run, settings).result()]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
