"""How near the pipeline is to what its parts cost: `python tests/bench_scan.py [ROUNDS|glance]`, three ratios.

1. image scan / limit      throughput of whole scans, as a share of what the bare library calls would allow
2. keyframes / linear      cost of a 60 s 1080p scan when every frame is read, over the cost as it is
3. encoder / Xception@299  crops per second, over the usual backbone's on the same core

Unit: CPU-seconds of single-threaded work, the jail's children included; other work on the machine hardly moves them.
Both sides run interleaved in one process; a ratio is the median over the rounds, with the least and the greatest.
`glance` takes the first and the last one in two rounds, some 15 s: what `make test` ends with.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import asyncio
import contextlib
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import metadata
from pathlib import Path

import cv2
import media
import models
import numpy as np
import torch
from PIL import Image
from xception import SIZE, xception

from scanner.decoding.jail import TASKS, Jail
from scanner.detection.checkpoint import SHIPPED, eager_scores, golden_crops
from scanner.detection.faces import FaceDetector, align
from scanner.pipeline import Scanner
from scanner.settings import Settings

PORTRAITS = sorted((Path(__file__).parent / "media").glob("*_[123].jpg"))
PICTURE_PX = 1024
CLIP_S, CLIP_RATE, CLIP_GOP = 60, 24, 48  # a keyframe every 2 s, as video sites have it
BATCHES = (1, 2, 4, 8)
TARGETS = {"image scan / limit": 0.90, "keyframes / linear": 3.5, "encoder / Xception@299": 15.0}


def pictures(folder: Path) -> list[Path]:
    """The shipped portraits at the size of a web picture."""
    for path in PORTRAITS:
        with Image.open(path) as portrait:
            large = portrait.convert("RGB").resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
            large.save(folder / path.name, quality=90)
    return [folder / path.name for path in PORTRAITS]


def clip(folder: Path) -> Path:
    """60 s of 1080p: two people before a moving, textured background."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (68, 120, 3), dtype=np.uint8)
    scene = cv2.resize(coarse, (1920, 1080), interpolation=cv2.INTER_CUBIC)
    people = [cv2.resize(cv2.imread(str(PORTRAITS[i]))[:, :, ::-1], (640, 640)) for i in (0, 3)]

    def frames() -> Iterator[np.ndarray]:
        for number in range(CLIP_S * CLIP_RATE):
            frame = np.roll(scene, 3 * number, axis=1)
            drift = abs(number % 200 - 100)
            frame[300:940, 150 + drift : 790 + drift] = people[0]
            frame[200:840, 1050 - drift : 1690 - drift] = people[1]
            yield frame

    return media.clip(
        folder / "clip.mp4", frames(), size=(1920, 1080), rate=CLIP_RATE, gop=CLIP_GOP, options={"crf": "23"}
    )


def cpu_s(pid: int | str) -> float:
    """CPU time of a process, of the children that it has buried, and of its living descendants."""
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    living = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK") + sum(map(cpu_s, living))  # utime ... cstime


def tree_cpu_s(jails: tuple[Jail, ...]) -> float:
    """CPU time of this process and of all that happens in the jails."""
    return time.process_time() + sum(cpu_s(server.process.pid) for jail in jails for server in jail._servers.values())


class Bench:
    """Everything loaded once, and one method per side of a ratio; each answers the CPU-seconds per item."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        weights = "" if SHIPPED.is_file() else str(models.random_checkpoint(folder))
        settings = Settings(weights=weights, threads=1, decode_timeout_s=600.0)  # a busy machine takes long
        self.scanner = stack.enter_context(Scanner(settings))
        tasks = {**TASKS, "video": "linear_reading:decode"}
        self.quick, self.linear = self.scanner.jail, stack.enter_context(Jail(settings, tasks=tasks))
        self.detector = self.scanner.model.detector
        self.faces, self.xception = FaceDetector(), xception()
        self.folder, self.pictures = folder, pictures(folder)
        self.crops = np.concatenate([golden_crops()] * 8)

    @cached_property
    def clip(self) -> Path:
        return clip(self.folder)

    @cached_property
    def best_batch(self) -> int:
        return min(BATCHES, key=self.xception_s)

    def cost_s(self, work: Callable[[], object], items: int) -> float:
        begun = tree_cpu_s((self.quick, self.linear))
        work()
        return (tree_cpu_s((self.quick, self.linear)) - begun) / items

    def scan_s(self) -> float:
        """Whole scans of pictures: fetch, jail, verdict and all."""
        return self.cost_s(lambda: self._scan(*self.pictures), len(self.pictures))

    def limit_s(self) -> float:
        """The same pictures through the bare calls: decode, detect, align, forward."""

        def bare() -> None:
            for path in self.pictures:
                pixels = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                crops = [align(pixels, face)[0] for face in self.faces.detect([pixels])[0]]
                self.detector.score(np.stack(crops))

        return self.cost_s(bare, len(self.pictures))

    def keyframes_s(self) -> float:
        """The clip as it is scanned."""
        self.scanner.jail = self.quick
        return self.cost_s(lambda: self._scan(self.clip), 1)

    def linear_s(self) -> float:
        """The clip with every frame read."""
        self.scanner.jail = self.linear
        try:
            return self.cost_s(lambda: self._scan(self.clip), 1)
        finally:
            self.scanner.jail = self.quick

    def encoder_s(self) -> float:
        """One crop, from bytes to score and map."""
        return self.cost_s(lambda: self.detector.score(self.crops), len(self.crops))

    def xception_s(self, batch: int | None = None) -> float:
        """One crop of 299 px, already normalised, in the batch size that suits it best."""
        batch = batch or self.best_batch
        x = torch.zeros(batch, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return self.cost_s(lambda: [self.xception(x) for _ in range(8 // batch)], 8)

    def _scan(self, *paths: Path) -> None:
        """One after the other in one event loop, as the command does."""

        async def scan_all() -> None:
            for path in paths:
                outcome = (await self.scanner.scan(str(path))).outcome
                if outcome.verdict is None or not outcome.verdict.faces:
                    sys.exit(f"{path.name} was not judged, so there is nothing to measure: {outcome}")

        asyncio.run(scan_all())


def ratios(rounds: int, ours: Callable[[], float], other: Callable[[], float]) -> tuple[list[float], list[float]]:
    """CPU-seconds of both sides per round, interleaved, after one round of each to warm up."""
    ours()
    other()
    pairs = [(ours(), other()) for _ in range(rounds)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def show(name: str, ours: list[float], other: list[float]) -> None:
    of_rounds = [b / a for a, b in zip(ours, other, strict=True)]
    middle, target = statistics.median(of_rounds), TARGETS[name]
    sides = " and ".join(f"{1000 * statistics.median(side):.2f}" for side in (ours, other))
    verdict = "reached" if middle >= target else "MISSED"
    spread = f"{min(of_rounds):.2f} to {max(of_rounds):.2f}"
    print(f"{name:24} {middle:6.2f}  ({spread}; {sides} core-ms; target {target:g}: {verdict})")


def glance() -> None:
    """The two ratios that need no clip, in two rounds: enough to see that something became twice as slow."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(Path(folder), stack)
        bench.best_batch = 1  # the best on every machine so far, and finding it takes half a minute
        show("image scan / limit", *ratios(2, bench.scan_s, bench.limit_s))
        show("encoder / Xception@299", *ratios(2, bench.encoder_s, bench.xception_s))


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["glance"]:
        glance()
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "unknown")  # noqa: PTH123, SIM115
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "av", "pillow", "numpy"))
    print(f"{cpu}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, load {os.getloadavg()[0]:.1f}")
    print(f"Python {platform.python_version()}, {versions}; {rounds} rounds")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(Path(folder), stack)
        info, card = bench.detector.info, bench.detector.checkpoint.card
        print(f"model {info.model_id} on {info.backend}, {info.precision}; Xception in batches of {bench.best_batch}")
        rate = 8e-6 * bench.clip.stat().st_size / CLIP_S
        print(f"clip of {rate:.1f} Mbit/s with a keyframe every {CLIP_GOP / CLIP_RATE:g} s\n")
        show("image scan / limit", *ratios(rounds, bench.scan_s, bench.limit_s))
        show("keyframes / linear", *ratios(rounds, bench.keyframes_s, bench.linear_s))
        show("encoder / Xception@299", *ratios(rounds, bench.encoder_s, bench.xception_s))
        moved = np.abs(
            bench.detector.score(bench.crops).raw - eager_scores(bench.detector.checkpoint.encoder, bench.crops)
        )
        print(f"\naccuracy guard: scores moved by at most {moved.max():.1e} from eager fp32 (limit 1e-2)")
        auc = card["test"]["auc_seen"] if "test" in card else "none, these weights are random"
        print(f"                AUC on seen kinds, test identities, from the checkpoint's card: {auc}")


if __name__ == "__main__":
    main()
