"""How near the encoder is to what one core can do, and to the usual backbones: `tests/bench_encoder.py [ROUNDS]`.

1. share of the limit        the limit is the slower of two: its arithmetic at the speed of a measured matrix product,
                             or its activations, read and written once, at the speed of a measured copy, both in
                             the encoder's own precision (bf16 where the CPU has it); layer by layer it is the same
                             limit, since each convolution is bound by its arithmetic; normalisation counts nothing,
                             and multiplications are counted as the network has them: Winograd does with fewer
2. against Xception@299, EfficientNet-B4@380, each in the precision and batch that suits it best

Unit: CPU-seconds of one thread, of each side the best of three, because a neighbour on the same core takes a third of
what it can do. All sides run interleaved; a ratio is the median over the rounds, with the least and the greatest.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import platform
import statistics
import sys
import time
from collections.abc import Callable

import efficientnet
import numpy as np
import torch
import xception
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scanner.detection.checkpoint import SHIPPED, eager_scores, golden_crops, load_checkpoint
from scanner.detection.detector import Detector, choose_backend
from scanner.detection.folded import DTYPES, Folded
from trt_engines.machine import cpu_name

BATCHES = (1, 2, 4, 8)
TARGETS = {"limit": 0.80, "Xception@299": 15.0, "EfficientNet-B4@380": 20.0}
PRODUCT = 1024  # side of the matrices
COPY_BYTES = 2**27  # more than any cache holds
ITEMS = 8  # crops, or pictures, per measurement


def cpu_s(work: Callable[[], object], items: int = 1) -> float:
    """CPU-seconds per item."""
    begun_s = time.process_time()
    work()
    return (time.process_time() - begun_s) / items


def best_s(measure: Callable[[], float]) -> float:
    """The least of three."""
    return min(measure() for _ in range(3))


def flop(module: nn.Module, x: torch.Tensor) -> float:
    """Multiplications and additions for one item of the batch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() / len(x)


def activation_bytes(module: nn.Module, x: torch.Tensor) -> float:
    """What the convolutions read and write of one item, each tensor once."""
    moved = []

    def count(_layer: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        moved.append(given[0].numel() * given[0].element_size() + made.numel() * made.element_size())

    hooks = [one.register_forward_hook(count) for one in module.modules() if isinstance(one, nn.Conv2d)]
    with torch.no_grad():
        module(x)
    for hook in hooks:
        hook.remove()
    return sum(moved) / len(x)


class Limit:
    """What one core was measured to do, in the encoder's precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.a, self.b = (torch.randn(PRODUCT, PRODUCT).to(dtype) for _ in range(2))
        self.source = torch.zeros(COPY_BYTES, dtype=torch.uint8)
        self.target = torch.zeros_like(self.source)

    def product_s(self) -> float:
        """Seconds per multiplication or addition."""
        return cpu_s(lambda: torch.mm(self.a, self.b)) / (2 * PRODUCT**3)

    def copy_s(self) -> float:
        """Seconds per byte read or written."""
        return cpu_s(lambda: self.target.copy_(self.source)) / (2 * COPY_BYTES)


class Yardstick:
    """A backbone in its best form."""

    def __init__(self, module: nn.Module, size: int) -> None:
        self.module, self.size = module, size
        forms = [(dtype, batch) for dtype in dict.fromkeys([torch.float32, DTYPES[choose_backend().precision]])
                 for batch in BATCHES]  # fmt: skip
        self.form = min(forms, key=self.seconds)

    def seconds(self, form: tuple[torch.dtype, int] | None = None) -> float:
        dtype, batch = form or self.form
        x = torch.zeros(batch, 3, self.size, self.size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        self.module.to(dtype)
        with torch.inference_mode():
            self.module(x)
            return cpu_s(lambda: [self.module(x) for _ in range(ITEMS // batch)], ITEMS)


def show(name: str, ratios: list[float], words: str) -> None:
    middle, target = statistics.median(ratios), TARGETS[name]
    verdict = "reached" if middle >= target else "MISSED"
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"{'encoder alone / ' + name:36} {middle:6.2f}  ({spread}; {words}; target {target:g}: {verdict})")


def main() -> None:
    """Measure and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    backend = choose_backend(has_cuda=False)
    detector = Detector(load_checkpoint(SHIPPED), backend)
    dtype = DTYPES[backend.precision]
    crops = np.concatenate([golden_crops()] * 2)
    print(f"{cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print(f"torch {torch.__version__}, model {detector.info.model_id}, {backend.precision}; {rounds} rounds")
    folded, x = Folded(detector.checkpoint.encoder, dtype), torch.from_numpy(crops)
    work, moved = flop(folded, x), activation_bytes(folded, x)
    per_batch = {
        batch: min(cpu_s(lambda b=batch: detector.score(crops[:b]), batch) for _ in range(4)) for batch in BATCHES
    }
    batch = min(per_batch, key=per_batch.__getitem__)
    sticks = {
        "Xception@299": Yardstick(xception.xception(), xception.SIZE),
        "EfficientNet-B4@380": Yardstick(efficientnet.efficientnet_b4(), efficientnet.SIZE),
    }
    limit = Limit(dtype)

    def ours_s() -> float:
        return cpu_s(lambda: [detector.score(crops[:batch]) for _ in range(ITEMS // batch)], ITEMS)

    print(f"one crop: {work / 1e9:.2f} GFLOP, {moved / 1e6:.1f} MB of activations; batches of {batch} suit it best\n")
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", "limit", *sticks)}
    for _ in range(rounds):
        arithmetic_s, memory_s = (best_s(one) for one in (limit.product_s, limit.copy_s))
        seconds["limit"].append(max(work * arithmetic_s, moved * memory_s))
        seconds["ours"].append(best_s(ours_s))
        for name, stick in sticks.items():
            seconds[name].append(best_s(stick.seconds))
    ours = seconds["ours"]
    own = f"{1000 * statistics.median(ours):.2f}"
    for name, other in seconds.items():
        if name != "ours":
            ratios = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
            about = "" if name == "limit" else f", {sticks[name].form[0]} in batches of {sticks[name].form[1]}"
            show(name, ratios, f"{own} and {1000 * statistics.median(other):.2f} core-ms{about}")
    moved_by = np.abs(detector.score(crops).raw - eager_scores(detector.checkpoint.encoder, crops)).max()
    print(f"\naccuracy guard: scores moved by at most {moved_by:.1e} from eager fp32 (limit 1e-2)")


if __name__ == "__main__":
    main()
