"""A runner in, its latency and throughput per batch size out; what this device can do at most, beside it.

One reason: manifests, `laescan engines bench` and tests/bench_gpu.py must mean the same by a millisecond.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trt_engines.export import Run
from trt_engines.manifest import Profile, Timing

ROUNDS = 100
WARM_UP = 5


def timings(run: Run, crops: Tensor, sizes: Sequence[int], *, budget_s: float = 2.0) -> tuple[Timing, ...]:
    """Each batch size, timed one call after the other for at most `budget_s`; `crops` repeat to fill a batch.

    Wall time around a whole call with the device waited for: what a caller sees, copies to the host not included.
    """
    return tuple(_timing(run, _filled(crops, size), budget_s) for size in sizes)


def sizes_of(profile: Profile) -> tuple[int, ...]:
    """The batch sizes worth measuring of a profile."""
    return tuple(sorted({size for size in (1, 16, 64, 256) if profile.least <= size <= profile.most} | {profile.best}))


def _filled(crops: Tensor, size: int) -> Tensor:
    return crops.repeat(-(-size // len(crops)), *(1,) * (crops.dim() - 1))[:size].contiguous()


def _timing(run: Run, batch: Tensor, budget_s: float) -> Timing:
    def once() -> float:
        begun_s = time.perf_counter()
        run(batch)
        wait(batch.device)
        return time.perf_counter() - begun_s

    with torch.inference_mode():
        for _ in range(WARM_UP):
            slow_s = once()
        rounds = max(3, min(ROUNDS, int(budget_s / max(slow_s, 1e-6))))
        took_s = sorted(once() for _ in range(rounds))
    middle_s, last_s = took_s[len(took_s) // 2], took_s[min(len(took_s) - 1, int(len(took_s) * 0.99))]
    rate = len(batch) / middle_s
    return Timing(batch=len(batch), p50_ms=1000 * middle_s, p99_ms=1000 * last_s, crops_per_s=rate)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Peaks:
    """What the device was measured to do at most: matrix products in one precision, and copies."""

    flop_per_s: float
    bytes_per_s: float  # read and written


def peaks(device: str, dtype: torch.dtype, *, rounds: int = 5) -> Peaks:
    """The best of a few rounds: a square matrix product, and a copy that no cache holds."""
    side = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.empty(2**30 if device == "cuda" else 2**27, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        product_s = _best_s(lambda: torch.mm(a, b), a.device, rounds)
        copy_s = _best_s(lambda: target.copy_(source), source.device, rounds)
    return Peaks(2 * side**3 / product_s, 2 * source.numel() / copy_s)


def _best_s(work: Callable[[], object], device: torch.device, rounds: int) -> float:
    best_s = float("inf")
    for _ in range(rounds + 1):
        begun_s = time.perf_counter()
        work()
        wait(device)
        best_s = min(best_s, time.perf_counter() - begun_s)
    return best_s
