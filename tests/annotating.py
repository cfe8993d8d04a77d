"""A folder of candidates and the annotator serving it, for its tests."""

import asyncio
import threading
from contextlib import contextmanager

import numpy as np
from aiohttp import web

from scanner.training import candidates
from scanner.training.annotate import Annotator
from scanner.training.data import Sample

WIDTH, HEIGHT = 96, 64


def pictures(count=3):
    """Smooth pictures, the right half of each forged by 60 grey levels."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(count):
        real = np.stack([60 + x, 60 + y, np.full_like(x, 40 * number)], -1).astype(np.uint8)
        fake = real.copy()
        fake[16:48, 48:80] += 60
        yield real, fake


def forged_part():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[16:48, 48:80] = True
    return mask


def make(folder, count=3):
    """Candidates with maps; all but the last with an original."""
    both = list(pictures(count))
    samples = [Sample(fake, np.zeros((HEIGHT, WIDTH), np.float32), "patch", "nobody") for _, fake in both]
    originals = [real for real, _ in both[:-1]] + [None]
    candidates.write_candidates(folder, samples, [np.eye(16)] * count, originals)
    return folder


def mask_of(folder, name):
    """The mask on disk as bool (H, W); None where there is none."""
    found = {m.name: m.sample.mask for m in candidates.read_masks(folder)}.get(name)
    return None if found is None else found >= 0.5


@contextmanager
def serving(folder):
    """The address of a real server in a thread of its own."""
    annotator, loop, begun, address = Annotator.of(folder), asyncio.new_event_loop(), threading.Event(), []

    async def run():
        runner = web.AppRunner(annotator.application(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address.append(f"http://127.0.0.1:{runner.addresses[0][1]}/{annotator.token}/")
        begun.set()
        await stop.wait()
        await runner.cleanup()

    stop = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=[run()])
    thread.start()
    assert begun.wait(20)
    yield address[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()
