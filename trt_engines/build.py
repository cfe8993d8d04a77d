"""A network and crops to hold it to in; an engine that says the same, with its manifest, in the store out.

    export -> graph = module? -> ONNX -> (quantise) -> compile -> load -> engine = fp32 network? -> measure -> store

One reason: an engine gets into the store by this way only, so whatever is there has passed its guards.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trt_engines import bench
from trt_engines.errors import BuildFailed, NoCompiler
from trt_engines.export import Run, export, write_onnx
from trt_engines.flavours import Flavour, Graph
from trt_engines.machine import this_machine
from trt_engines.manifest import QUANTIZED, Guard, Manifest, Precision, Profile
from trt_engines.store import Entry, Store

log = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORST_SCORE = 0.02
"""Most that P(manipulated) of any crop may move: a fiftieth of its range, a tenth of the inconclusive band."""
WORST_AUC_LOSS = 0.002
LABELLED_LEAST = 100
"""Crops of each kind below which an AUC says little, and 8 bits are not trusted."""


@dataclass(frozen=True)
class Network:
    """What engines are made of and held to."""

    model_id: str
    module: Callable[[torch.dtype], nn.Module]  # crops uint8 -> raw, attention, probability; made for a precision
    crops: Tensor  # (N, H, W, 3) uint8, what the guard scores
    forged: npt.NDArray[np.bool_] | None  # (N,) which of them are forged, where that is known
    besides: Sequence[str] = ()  # convolutions that stay as they are when others go to 8 bits


@dataclass(frozen=True)
class Wish:
    """Which engine."""

    precision: Precision
    profile: Profile
    device: str  # "cuda" or "cpu"
    guard_sizes: Sequence[int] = (1, 2, 3, 7)
    time_budget_s: float = 2.0  # per batch size
    limits: tuple[float, float] = (WORST_SCORE, WORST_AUC_LOSS)


def build(network: Network, wish: Wish, flavour: Flavour, store: Store) -> Entry:
    """Build one engine, with the store locked; raises NoCompiler, BuildFailed. It takes minutes with TensorRT."""
    check(network, wish, flavour)
    versions = flavour.versions()
    with store.workshop() as folder:
        begun_s = time.perf_counter()
        graph = graph_of(network, wish, flavour, folder)
        exported_s = time.perf_counter()
        engine = folder / "engine.pt2"
        flavour.build(graph, engine)
        built_s = time.perf_counter()
        run = flavour.load(str(engine), wish.device)
        loaded_s = time.perf_counter()
        guard = held(network, run, wish)
        data = engine.read_bytes()
        manifest = Manifest(
            model_id=network.model_id,
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            flavour=flavour.name,
            precision=wish.precision,
            profile=wish.profile,
            machine=this_machine(versions, wish.device),
            guard=guard,
            timings=bench.timings(run, graph.example, bench.sizes_of(wish.profile), budget_s=wish.time_budget_s),
            export_s=exported_s - begun_s,
            build_s=built_s - exported_s,
            load_s=loaded_s - built_s,
            built_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        )
        return store.put(engine, manifest, graph.onnx)


def check(network: Network, wish: Wish, flavour: Flavour) -> None:
    """Whether there is any sense in beginning; raises NoCompiler, BuildFailed."""
    if flavour.needs_cuda and wish.device != "cuda":
        msg = f"{flavour.name} engines are for NVIDIA GPUs, and torch finds none here"
        raise NoCompiler(msg)
    if wish.precision not in flavour.precisions:
        msg = f"{flavour.name} builds {', '.join(flavour.precisions)} engines, not {wish.precision}"
        raise BuildFailed(msg)
    if wish.precision in QUANTIZED:
        forged = network.forged
        if forged is None or min(int(forged.sum()), int((~forged).sum())) < LABELLED_LEAST:
            msg = (
                f"{wish.precision} is calibrated and judged on crops: at least {LABELLED_LEAST} real and as many forged"
            )
            raise BuildFailed(msg)


def graph_of(network: Network, wish: Wish, flavour: Flavour, folder: Path) -> Graph:
    """What a compiler is given: the graph on its device, and as ONNX where that can be, or must be, written."""
    dtype = DTYPES.get(wish.precision, torch.float16 if wish.device == "cuda" else torch.float32)
    module = network.module(dtype).to(wish.device)
    example = network.crops[: max(wish.guard_sizes)].to(wish.device).clone()  # a view would be saved with all crops
    graph = Graph(export(module, example, wish.profile), None, example, wish.profile)
    path = folder / "graph.onnx"
    if flavour.needs_onnx:
        write_onnx(graph.program, example, path)
    else:
        with suppress(NoCompiler):  # the portable form is a gift; who lacks its packages gets the engine all the same
            write_onnx(graph.program, example, path)
    if wish.precision in QUANTIZED:
        from trt_engines import quantize  # noqa: PLC0415 - needs onnx

        batches = network.crops.to(wish.device).split(16)
        ranges = quantize.input_ranges(network.module(torch.float32).to(wish.device), batches, besides=network.besides)
        quantize.quantized(path, path, ranges, wish.precision)
    return replace(graph, onnx=path) if path.exists() else graph


def held(network: Network, run: Run, wish: Wish) -> Guard:
    """How far the engine is from the plain network; raises BuildFailed beyond the limits."""
    step = wish.profile.most
    plain = network.module(torch.float32).to(wish.device)
    ours, theirs = (_scores(one, network.crops, wish, step) for one in (run, plain))
    if not np.isfinite(ours).all():
        msg = "the engine answers what is no number"
        raise BuildFailed(msg)
    raw, score = np.abs(ours - theirs).max(1).tolist()
    loss = None if network.forged is None else auc(theirs[1], network.forged) - auc(ours[1], network.forged)
    worst_score, worst_loss = wish.limits
    if score > worst_score or (loss or 0.0) > worst_loss:
        found = f"a score moves by {score:.3f} (limit {worst_score:g})"
        found += "" if loss is None else f", the AUC falls by {loss:.4f} (limit {worst_loss:g})"
        msg = f"the {wish.precision} engine says something else than the network: {found}; it is not taken"
        raise BuildFailed(msg)
    return Guard(crops=len(network.crops), worst_score=score, worst_raw=raw, auc_loss=loss)


def _scores(run: Run, crops: Tensor, wish: Wish, step: int) -> npt.NDArray[np.float64]:
    """raw and probability, (2, N)."""
    parts = []
    with torch.inference_mode():
        for batch in crops.split(step):
            raw, _, probability = run(batch.to(wish.device))
            parts.append(torch.stack([raw, probability]).double().cpu())
    return torch.cat(parts, 1).numpy()


def auc(scores: npt.NDArray[np.float64], forged: npt.NDArray[np.bool_]) -> float:
    """Chance that a forged crop scores above a real one, ties half."""
    order, real = scores[forged], np.sort(scores[~forged])
    below = np.searchsorted(real, order, "left") + np.searchsorted(real, order, "right")
    return float(below.mean() / (2 * len(real)))
