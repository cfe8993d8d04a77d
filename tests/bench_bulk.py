"""How fast lists are, beside img2dataset and then a detector: `python tests/bench_bulk.py [URLS] [ROUNDS]`.

    ours    one process tree: fetch -> jail -> MesoInception-4 on 256 px, a row for each URL, with its journal
    peer    img2dataset to 256 px webdataset shards, then MesoInception-4 over the shards in batches of 32

The same detector, server, URLs and pictures for both, interleaved, start-up included. Pictures are those of tests/media
or of the folder in BENCH_PICTURES, each made unique by its last bytes, so that ours cannot scan bytes once.
img2dataset lives in a virtual environment of its own (it pins much): IMG2DATASET=/path/to/its/python. Without it the
peer is its documented algorithm, and the output says so: a shard at a time, 32 threads with urllib and a connection for
each URL, cv2 to 256 px, JPEG again, tar files, then the detector.

Printed: seconds and core-seconds (other work on the machine moves these much less), median of the rounds.
"""

import io
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import asyncio
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from bulk_site import NETWORK, Site

SIDE_PX = 256
SHARD = 1_000
THREADS = 32
TARGETS = {"ours / peer": 1.5, "finished again": 0.05, "half of it twice": 0.60}


def served(count):
    """Web-sized pictures, each other bytes."""
    folder = Path(os.environ.get("BENCH_PICTURES", Path(__file__).parent / "media"))
    found = sorted(path for path in folder.rglob("*.jp*g"))[:200]
    made = []
    for path in found:
        pixels = cv2.imread(str(path))
        scale = 640 / max(pixels.shape[:2])
        made.append(cv2.imencode(".jpg", cv2.resize(pixels, None, fx=scale, fy=scale), [1, 90])[1].tobytes())
    print(f"{count} URLs of {len(made)} pictures, {sum(map(len, made)) / len(made) / 1e3:.0f} kB on average")
    return {f"{n}.jpg": made[n % len(made)] + b"%d" % n for n in range(count)}


class Meso:
    """A Model: whole pictures through MesoInception-4, all that wait in one batch."""

    def __init__(self):
        import torch  # noqa: PLC0415 - part of the start-up that is measured

        from scanner.contract import ModelInfo  # noqa: PLC0415
        from scanner.training.baselines import MesoInception  # noqa: PLC0415
        from scanner.verdict import Calibration  # noqa: PLC0415

        torch.set_num_threads(1)
        self.torch, self.net = torch, MesoInception().eval()
        self.info = ModelInfo("meso", "cpu", "fp32")
        self.calibration = Calibration(slope=1.0, intercept=0.0, authentic=0.2, manipulated=0.8)
        self.waiting, self.task, self.thread = [], None, ThreadPoolExecutor(1)

    def scores(self, pictures):
        x = self.torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
        with self.torch.inference_mode():
            return self.net.logit(x).tolist()

    def work(self, batch):
        return self.scores([cv2.resize(one, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) for one, _ in batch])

    async def look(self, frames, *, urgent=False):  # noqa: ARG002 - a Model's
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((frames[0], future))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self.run())
        raw = await future
        return [[seen(frames[0], raw)]]

    async def survey(self, picture, *, urgent=False):  # noqa: ARG002 - a Model's
        return None

    async def run(self):
        while self.waiting:
            batch, self.waiting = self.waiting[:32], self.waiting[32:]
            scores = await asyncio.get_running_loop().run_in_executor(self.thread, self.work, batch)
            for (_, future), score in zip(batch, scores, strict=True):
                future.set_result(score)


def seen(frame, raw):
    from scanner.detection.faces import Face, Quality  # noqa: PLC0415
    from scanner.detection.model import SeenFace  # noqa: PLC0415

    height, width = frame.shape[:2]
    face = Face((0.0, 0.0, float(width), float(height)), np.zeros((5, 2), np.float32), 1.0)
    to_frame = np.array([[width, 0, 0], [0, height, 0]], np.float64)
    return SeenFace(face, Quality(1.0, ()), to_frame, float(raw), np.zeros((16, 16), np.float32))


# ---------------------------------------------------------------- each side, in a process of its own


def ours(source, out):
    from scanner.bulk.plan import Plan  # noqa: PLC0415
    from scanner.bulk.polite import Policy  # noqa: PLC0415
    from scanner.bulk.run import run  # noqa: PLC0415
    from scanner.settings import Settings  # noqa: PLC0415

    plan = Plan(source=source, out=Path(out), with_hash=False, policy=Policy(per_host=64))
    summary = asyncio.run(run(plan, Settings(allow_networks=(NETWORK,)), model=Meso()))
    print(summary.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def detect(folder):
    """The second pass of the peer."""
    meso, batch, done = Meso(), [], 0
    for path in sorted(Path(folder).glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith(".jpg"):
                    picture = cv2.imdecode(np.frombuffer(shard.extractfile(member).read(), np.uint8), cv2.IMREAD_COLOR)
                    batch.append(cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))
                if len(batch) == 32:
                    done += len(meso.scores(batch))
                    batch = []
    done += len(meso.scores(batch)) if batch else 0
    print(done, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def download(source, folder):
    """img2dataset's documented way, where it is not installed."""
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


# ---------------------------------------------------------------- measuring


def timed(*commands):
    """Seconds and core-seconds of some programs, one after the other, and what the last one said."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}  # all of one tree
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, cores, done.stdout.split()


def peer_commands(source, folder):
    python = os.environ.get("IMG2DATASET")
    first = [sys.executable, __file__, "download", source, folder]
    if python:
        arguments = {
            "url_list": source,
            "output_folder": folder,
            "output_format": "webdataset",
            "image_size": SIDE_PX,
            "resize_mode": "keep_ratio",
            "processes_count": os.cpu_count(),
            "thread_count": THREADS,
            "number_sample_per_shard": SHARD,
            "enable_wandb": False,
            "disallowed_header_directives": [],
        }
        call = f"if __name__ == '__main__':\n    from img2dataset import download\n    download(**{arguments!r})\n"
        script = Path(folder).with_suffix(".py")  # a file: its processes import the main module again
        script.write_text(call)
        first = [python, str(script)]
    return first, [sys.executable, __file__, "detect", folder]


def show(name, values, better):
    middle, target = statistics.median(values), TARGETS[name]
    reached = middle >= target if better == "more" else middle <= target
    spread = f"{min(values):.3f} to {max(values):.3f}"
    print(f"{name:18} {middle:7.3f}  ({spread}; target {target:g}: {'reached' if reached else 'MISSED'})")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; detector MesoInception-4, fp32, random weights")
    print("peer:", "img2dataset" if os.environ.get("IMG2DATASET") else "img2dataset's algorithm (it is not installed)")
    with Site(served(count)) as site, tempfile.TemporaryDirectory() as folder:
        source, half, out, shards = (str(Path(folder) / name) for name in ("list.txt", "half.txt", "out.jsonl", "tar"))
        urls = [site.url(f"{n}.jpg") for n in range(count)]
        Path(source).write_text("\n".join(urls))
        Path(half).write_text("\n".join(urls[: count // 2] * 2))
        found = {name: [] for name in ("ours", "peer", "again", "half")}
        for _ in range(rounds):
            for path in Path(folder).glob("out.*"):
                path.unlink()
            shutil.rmtree(shards, ignore_errors=True)
            found["ours"].append(timed([sys.executable, __file__, "ours", source, out]))
            found["peer"].append(timed(*peer_commands(source, shards)))
            again = timed([sys.executable, "-m", "scanner.cli", "bulk", source, "-o", out, "-q"])
            found["again"].append((*again[:2], [count, 0]))
            twice = str(Path(folder) / "out.half.jsonl")
            found["half"].append(timed([sys.executable, __file__, "ours", half, twice]))
            for name, runs in found.items():
                assert int(runs[-1][2][0]) == count, (name, runs[-1])
    for name, runs in found.items():
        wall, cores = (statistics.median(run[at] for run in runs) for at in (0, 1))
        rss = max(int(run[2][1]) for run in runs)
        rates = f"{count / wall:8.1f} img/s {1e3 * cores / count:7.2f} core-ms/img"
        print(f"{name:6} {wall:8.1f} s {cores:8.1f} core-s {rates} {rss:6} MB")

    def ratios(above, below, at):
        return [a[at] / b[at] for a, b in zip(found[above], found[below], strict=True)]

    for at, unit in ((0, "by seconds"), (1, "by core-seconds")):
        print(unit)
        show("ours / peer", ratios("peer", "ours", at), "more")
        show("finished again", ratios("again", "ours", at), "less")
        show("half of it twice", ratios("half", "ours", at), "less")


if __name__ == "__main__":
    parts = {"ours": ours, "detect": detect, "download": download}
    if len(sys.argv) > 1 and sys.argv[1] in parts:
        parts[sys.argv[1]](*sys.argv[2:])
    else:
        main()
