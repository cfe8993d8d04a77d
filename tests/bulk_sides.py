"""What `bench_bulk.py` measures, each side a process of its own: `python bulk_sides.py SIDE JSON`.

    ours      `scanner.bulk.run` over a list, with a model in this process or workers elsewhere
    worker    a worker for pieces of lists
    download  img2dataset's documented way, where it is not installed
    detect    the second pass of the peer: the same detector over its shards

A side prints one JSON object: rows, largest resident set of the process (MB), and when it looked at the last picture.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import asyncio
import io
import json
import resource
import sys
import tarfile
import time
import urllib.request
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from bulk_site import NETWORK

SIDE_PX = 256
SHARD = 1_000
THREADS = 32
BATCH = 8  # larger ones leave the cache: 2.3 times as dear (performance.md §3)
CORES = len(os.sched_getaffinity(0))
DEVICE_S = 0.1
SLOPE, MIDDLE = 2_000.0, 0.119  # random weights give 0.118 to 0.120: so spread, labels differ


class Meso:
    """A Model: whole pictures through MesoInception-4, a batch of what waits for each core; always the same weights.

    Compute has one thread per batch: with two of torch's a batch takes as long or longer here, on either side.
    """

    def __init__(self):
        import torch  # noqa: PLC0415 - part of the start-up that is measured

        from scanner.contract import ModelInfo  # noqa: PLC0415
        from scanner.training.baselines import MesoInception  # noqa: PLC0415
        from scanner.verdict import Calibration  # noqa: PLC0415

        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.torch, self.net = torch, MesoInception().eval()
        self.info = ModelInfo("meso", "cpu", "fp32")
        self.calibration = Calibration(slope=SLOPE, intercept=-SLOPE * MIDDLE, authentic=0.3, manipulated=0.7)
        self.waiting, self.running, self.threads = [], set(), ThreadPoolExecutor(CORES)
        self.last_s = None

    def scores(self, pictures):
        x = self.torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        with self.torch.inference_mode():
            return self.net.logit(x).tolist()

    def work(self, batch):
        return self.scores([cv2.resize(one, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for one, _ in batch])

    async def look(self, frames, *, urgent=False):  # noqa: ARG002 - a Model's
        futures = []
        for frame in frames:
            futures.append(asyncio.get_running_loop().create_future())
            self.waiting.append((frame, futures[-1]))
        if len(self.running) < CORES:
            self.running.add(task := asyncio.create_task(self.run()))
            task.add_done_callback(self.running.discard)
        return [[seen(frame, await future)] for frame, future in zip(frames, futures, strict=True)]

    async def survey(self, picture, *, urgent=False):
        """Nothing: it sees whole pictures as it is."""

    async def run(self):
        while self.waiting:
            batch, self.waiting = self.waiting[:BATCH], self.waiting[BATCH:]
            scores = await asyncio.get_running_loop().run_in_executor(self.threads, self.work, batch)
            self.last_s = time.monotonic()
            for (_, future), score in zip(batch, scores, strict=True):
                future.set_result(score)


class Bright(Meso):
    """A Model that costs nothing: the brighter, the surer. What it judges fast shows what all the rest costs."""

    def __init__(self):
        from scanner.contract import ModelInfo  # noqa: PLC0415
        from scanner.verdict import Calibration  # noqa: PLC0415

        self.info, self.last_s = ModelInfo("bright", "cpu", "fp32"), None
        self.calibration = Calibration(slope=0.1, intercept=-17.0, authentic=0.3, manipulated=0.7)

    async def look(self, frames, *, urgent=False):  # noqa: ARG002 - a Model's
        self.last_s = time.monotonic()
        return [[seen(frame, frame[::8, ::8].mean())] for frame in frames]


class Device(Bright):
    """The same, after a device that looks at one picture at a time: what is measured then is not the cores."""

    def __init__(self):
        super().__init__()
        self.thread = ThreadPoolExecutor(1)  # of no event loop: a worker has one for each shard

    async def look(self, frames, *, urgent=False):
        await asyncio.get_running_loop().run_in_executor(self.thread, time.sleep, DEVICE_S)
        return await super().look(frames, urgent=urgent)


MODELS = {"meso": Meso, "bright": Bright, "device": Device}


def seen(frame, raw):
    from scanner.detection.faces import Face, Quality  # noqa: PLC0415
    from scanner.detection.model import SeenFace  # noqa: PLC0415

    height, width = frame.shape[:2]
    face = Face((0.0, 0.0, float(width), float(height)), np.zeros((5, 2), np.float32), 1.0)
    to_frame = np.array([[width, 0, 0], [0, height, 0]], np.float64)
    return SeenFace(face, Quality(1.0, ()), to_frame, float(raw), np.zeros((16, 16), np.float32))


def told(rows, begun_s, last_s):
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps({"rows": rows, "rss_mb": rss_mb, "last_s": last_s and last_s - begun_s}) + "\n")


def ours(source, out, *, model="meso", retries=3, queue=None, breaks=None, **settings):
    begun_s = time.monotonic()
    from scanner.bulk import polite  # noqa: PLC0415 - all imports are part of the start-up that is measured
    from scanner.bulk.plan import Plan  # noqa: PLC0415
    from scanner.bulk.run import run  # noqa: PLC0415
    from scanner.settings import Settings  # noqa: PLC0415

    if breaks:
        polite.BREAKS_S = tuple(breaks)
    patience, policy = polite.Patience(retries=retries), polite.Policy(per_host=64)
    plan = Plan(source=source, out=Path(out), policy=policy, patience=patience, queue=queue)
    judge = None if queue else MODELS[model]()
    summary = asyncio.run(run(plan, Settings(allow_networks=(NETWORK,), **settings), model=judge))
    told(summary.rows, begun_s, judge and judge.last_s)


def worker(redis_url, model="meso"):
    import redis  # noqa: PLC0415

    from scanner.bulk.shard_worker import ShardWorker  # noqa: PLC0415
    from scanner.settings import Settings  # noqa: PLC0415

    settings = Settings(allow_networks=(NETWORK,), redis_url=redis_url, near_labels=())  # each picture is scanned
    ShardWorker(redis.Redis.from_url(redis_url), settings, MODELS[model]()).work(logging_level=None)


def download(source, folder):
    """A shard at a time, 32 threads with urllib and a connection for each URL, cv2 to 256 px, JPEG again, tar files."""
    Path(folder).mkdir()
    urls = Path(source).read_text().split()

    def get(url):
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()

    for start in range(0, len(urls), SHARD):
        with tarfile.open(Path(folder) / f"{start:09}.tar", "w") as shard, ThreadPoolExecutor(THREADS) as threads:
            for number, data in enumerate(threads.map(get, urls[start : start + SHARD])):
                picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
                scale = SIDE_PX / min(picture.shape[:2])
                small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
                info = tarfile.TarInfo(f"{start + number:09}.jpg")
                info.size = len(encoded)
                shard.addfile(info, io.BytesIO(encoded))


def detect(folder, scores):
    """The scores go into a file, in the order of the list; batches are scored on all cores, too."""
    begun_s, meso = time.monotonic(), Meso()
    with ThreadPoolExecutor(CORES) as threads:
        found = [score for batch in ahead(threads, meso.scores, batches(folder)) for score in batch]
    Path(scores).write_text(json.dumps([float(1 / (1 + np.exp(-SLOPE * (raw - MIDDLE)))) for raw in found]))
    told(len(found), begun_s, time.monotonic())


def batches(folder):
    """The shards' pictures as the network takes them."""
    batch = []
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in sorted(shard.getmembers(), key=lambda one: one.name):  # the list's order
                if member.name.endswith(".jpg"):
                    picture = cv2.imdecode(np.frombuffer(shard.extractfile(member).read(), np.uint8), cv2.IMREAD_COLOR)
                    batch.append(cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)[:, :, ::-1])
                if len(batch) == BATCH:
                    yield batch
                    batch = []
    if batch:
        yield batch


def ahead(threads, work, given):
    """What `work` makes of each, in order; twice as many as there are cores are under way."""
    futures = deque()
    for one in given:
        futures.append(threads.submit(work, one))
        if len(futures) > 2 * CORES:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


if __name__ == "__main__":
    {"ours": ours, "worker": worker, "download": download, "detect": detect}[sys.argv[1]](**json.loads(sys.argv[2]))
