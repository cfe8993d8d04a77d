"""Everything that only a GPU can tell, in one run: `make gpu`, or `tests/bench_gpu.py [--help]`; prints Markdown.

1. what is here: device, driver, compilers, and why the others are not
2. operators: TensorRT for RTX builds the graph in every precision, without a GPU, too
3. engines: built, held to the fp32 network, stored and loaded again, for each compiler and precision that is here
4. speed per batch: eager, compiled, CUDA graphs, engines; p50, p99, crops/s, share of the measured limit
5. against Xception@299 and EfficientNet-B4@380 in the same precision
6. whole scans: pictures/s, and 60 s of 1080p per second of ours
7. mixed load: does memory grow?

On a machine without a GPU the same code runs on the CPU with what torch runs by itself: that is how it is tested.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bench_scan
import efficientnet
import numpy as np
import psutil
import torch
import xception
from bench_encoder import activation_bytes, flop

from scanner.detection.checkpoint import SHIPPED, load_checkpoint
from scanner.detection.detector import Backend, Detector, choose_backend
from scanner.detection.engines import PROFILE, Crops, compilers, network
from scanner.detection.folded import DTYPES, Folded
from scanner.pipeline import Scanner
from scanner.settings import Settings
from trt_engines import bench
from trt_engines.build import Network, Wish, build, graph_of
from trt_engines.compilers import imported
from trt_engines.errors import EngineTrouble
from trt_engines.export import Run
from trt_engines.flavours import flavours
from trt_engines.load import load
from trt_engines.machine import this_machine
from trt_engines.manifest import QUANTIZED, Precision, Profile, Wanted
from trt_engines.store import Store

PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "fp32", "fp8", "int8")


class Bench:
    """What all parts share."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.given, self.folder = given, folder
        self.backend = choose_backend()
        self.device = self.backend.device
        self.checkpoint = load_checkpoint(SHIPPED)
        crops = Crops.read(given.crops) if given.crops else None
        self.network: Network = network(self.checkpoint, crops)
        if given.quick:
            self.network = replace(self.network, crops=self.network.crops[:8])
        self.profile = Profile(1, 2, 4) if given.quick else PROFILE
        self.sizes = (1, 4) if given.quick else (1, 16, 64, 256)
        self.budget_s = 0.05 if given.quick else 2.0
        self.able, self.unable = compilers()
        self.store = Store(folder / "engines")
        self.crops = self.network.crops.to(self.device)

    def wish(self, precision: Precision) -> Wish:
        return Wish(precision, self.profile, self.device, guard_sizes=(1, 2, 3), time_budget_s=self.budget_s)


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def table(title: str, *columns: str) -> None:
    print(f"\n### {title}\n")
    row(*columns)
    row(*("---" for _ in columns))


def show_machine(b: Bench) -> None:
    here = this_machine({}, b.device)
    about = ", ".join(f"{name} {version}" for name, version in here.versions.items())
    print(f"## {here.device}\n\n{about}; driver {here.driver or 'none'}; model {b.checkpoint.model_id}")
    for name in b.able:
        print(f"- {name}: here, {b.able[name].versions() or 'with torch'}")
    for name, why in b.unable.items():
        print(f"- {name}: {why}")


def show_operators(b: Bench) -> None:
    """Needs no GPU, but TensorRT for RTX."""
    rtx = flavours()["tensorrt-rtx"]
    try:
        imported("tensorrt_rtx", "pip install 'laescan[trt-rtx]'")
    except EngineTrouble as error:
        print(f"\nOperators not tried: {error}")
        return
    table("TensorRT for RTX builds", "precision", "bytes", "build s")
    few = replace(b.network, crops=b.network.crops[:8])
    for precision in rtx.precisions:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "engine"
            try:
                graph = graph_of(few, b.wish(precision), rtx, Path(folder))
                begun_s = time.perf_counter()
                rtx.build(graph, path)
                row(precision, f"{path.stat().st_size:,}", f"{time.perf_counter() - begun_s:.1f}")
            except EngineTrouble as error:
                row(precision, error, "")


def show_engines(b: Bench) -> dict[str, Run]:
    """Build all that can be; out: those that passed, loaded again from the store."""
    table("Engines", "compiler", "precision", "export s", "build s", "load s", "bytes", "worst score", "AUC loss")
    runs: dict[str, Run] = {}
    for name, flavour in b.able.items():
        for precision in PRECISIONS:
            if precision not in flavour.precisions or (precision in QUANTIZED and not b.given.crops):
                continue
            if b.given.quick and precision != "fp32":
                continue
            try:
                with b.store.locked():
                    entry = build(b.network, b.wish(precision), flavour, b.store)
                wanted = Wanted(model_id=b.network.model_id)
                loaded = load(b.store, entry, wanted, b.able, b.device)
            except EngineTrouble as error:
                row(name, precision, error, *[""] * 5)
                continue
            runs[f"{name} {precision}"] = loaded.run
            m, guard = loaded.manifest, loaded.manifest.guard
            took = (f"{s:.1f}" for s in (m.export_s, m.build_s, m.load_s))
            loss = "" if guard.auc_loss is None else f"{guard.auc_loss:.4f}"
            row(name, precision, *took, f"{m.size_bytes:,}", f"{guard.worst_score:.1e}", loss)
    return runs


def plain_runs(b: Bench) -> Iterator[tuple[str, Run]]:
    """Without an engine: eager, compiled, and as the product serves."""
    precision = b.backend.precision
    for name in dict.fromkeys(("fp32", precision)):
        module = b.network.module(DTYPES[name]).to(b.device)
        yield f"eager {name}", module
        if b.given.compile:
            torch._dynamo.reset()
            yield f"torch.compile {name}", torch.compile(module, dynamic=False)
    served = Detector(b.checkpoint, Backend(b.device, precision, "bench"))
    yield f"as served without an engine, {precision}", served.plain_run


def limit_s(b: Bench, precision: str) -> float:
    """Least seconds per crop: arithmetic at the speed of a product, or activations at that of a copy."""
    dtype = DTYPES[precision]
    peaks = bench.peaks(b.device, dtype)
    products, copies = peaks.flop_per_s / 1e12, peaks.bytes_per_s / 1e9
    print(f"\n{precision}: products at {products:.2f} TFLOP/s, copies at {copies:.0f} GB/s")
    folded, few = Folded(b.checkpoint.encoder, dtype).to(b.device), b.crops[:2]
    return max(flop(folded, few) / peaks.flop_per_s, activation_bytes(folded, few) / peaks.bytes_per_s)


def show_speed(b: Bench, engines: dict[str, Run]) -> float:
    """Out: the best crops/s."""
    limits = {name: limit_s(b, name) for name in dict.fromkeys(("fp32", b.backend.precision))}
    table("Speed", "", "batch", "p50 ms", "p99 ms", "crops/s", "share of the limit")
    best = 0.0
    for name, run in (*plain_runs(b), *engines.items()):
        least_s = limits.get(name.rpartition(" ")[2], limits[b.backend.precision])
        sizes = [size for size in b.sizes if size <= b.profile.most]
        try:
            timings = bench.timings(run, b.crops, sizes, budget_s=b.budget_s)
        except RuntimeError as error:  # a table with a hole says more than none
            row(name, "", str(error).partition("\n")[0], "", "", "")
            continue
        for one in timings:
            best = max(best, one.crops_per_s)
            share = f"{one.crops_per_s * least_s:.2f}"
            row(name, one.batch, f"{one.p50_ms:.3f}", f"{one.p99_ms:.3f}", f"{one.crops_per_s:,.0f}", share)
    return best


def show_yardsticks(b: Bench, ours: float) -> None:
    table("Yardsticks, channels_last", "", "precision", "pictures/s at its best batch", "ours against it")
    precision = b.backend.precision
    for name, made, size in (
        ("Xception@299", xception.xception, xception.SIZE),
        ("EfficientNet-B4@380", efficientnet.efficientnet_b4, efficientnet.SIZE),
    ):
        module = made().to(b.device, DTYPES[precision])
        pictures = torch.zeros(1, 3, size, size, device=b.device, dtype=DTYPES[precision])
        pictures = pictures.to(memory_format=torch.channels_last)
        timings = bench.timings(lambda x, run=module: (run(x),), pictures, b.sizes, budget_s=b.budget_s)
        rate = max(one.crops_per_s for one in timings)
        row(name, precision, f"{rate:,.1f}", f"{ours / rate:.1f}x")


def show_scans(b: Bench) -> None:
    """One after the other through the whole pipeline, against its slowest stage alone."""
    table("Whole scans", "", "each s", "per second")
    pictures = bench_scan.PORTRAITS[: 2 if b.given.quick else None]
    kinds: dict[str, list[Path]] = {"pictures of 1 Mpx": [], "60 s of 1080p": []}
    kinds["pictures of 1 Mpx"] = bench_scan.pictures(b.folder)[: len(pictures)]
    if not b.given.quick:
        kinds["60 s of 1080p"] = [bench_scan.clip(b.folder)]
    with Scanner(Settings(decode_timeout_s=600.0, engines="off")) as scanner:
        for name, paths in kinds.items():
            if paths:
                asyncio.run(scan_all(scanner, paths[:1]))
                begun_s = time.perf_counter()
                asyncio.run(scan_all(scanner, paths))
                each_s = (time.perf_counter() - begun_s) / len(paths)
                row(name, f"{each_s:.3f}", f"{1 / each_s:.1f}")


async def scan_all(scanner: Scanner, paths: list[Path]) -> None:
    for path in paths:
        outcome = (await scanner.scan(str(path))).outcome
        if outcome.verdict is None:
            sys.exit(f"{path.name} was not judged, so there is nothing to measure: {outcome.failure}")


def show_growth(b: Bench, runs: dict[str, Run]) -> None:
    """Batches of any size for a while: memory in the first tenth against that at the end."""
    minutes = b.given.minutes
    table(f"Mixed load, {minutes:g} min", "", "batches", "host MB then, now", "device MB then, now")
    served = Detector(b.checkpoint, b.backend).plain_run
    for name, run in {"as served without an engine": served, **runs}.items():
        rng, count, early = np.random.default_rng(0), 0, (0.0, 0.0)
        begun_s, share_s = time.monotonic(), 60 * minutes / (len(runs) + 1)
        with torch.inference_mode():
            while (passed_s := time.monotonic() - begun_s) < share_s or count < 4:
                run(b.crops[: int(rng.integers(1, b.profile.most + 1))])
                bench.wait(torch.device(b.device))
                count += 1
                if passed_s < share_s / 10 or count <= 2:
                    early = memory_mb(b.device)
        now = memory_mb(b.device)
        row(name, count, *(f"{then:,.0f}, {later:,.0f}" for then, later in zip(early, now, strict=True)))


def memory_mb(device: str) -> tuple[float, float]:
    on_device = torch.cuda.memory_reserved() / 1e6 if device == "cuda" else 0.0
    return psutil.Process().memory_info().rss / 1e6, on_device


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="does it run? tiny batches, one engine, no clip")
    parser.add_argument("--crops", type=Path, help="folder with real/ and forged/, for fp8, int8 and the AUC")
    parser.add_argument(
        "--minutes", type=float, default=5.0 if torch.cuda.is_available() else 0.1, help="of mixed load"
    )
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=torch.cuda.is_available())
    given = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        b = Bench(given, Path(folder))
        show_machine(b)
        show_operators(b)
        engines = show_engines(b)
        best = show_speed(b, engines)
        show_yardsticks(b, best)
        show_scans(b)
        show_growth(b, engines)


if __name__ == "__main__":
    main()
