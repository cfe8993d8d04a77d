"""A runner in; the same runner replayed from CUDA graphs out, one graph per size of batch.

One reason: at small batches the GPU waits for the host. About thirty launches of 5 us each take longer than what they
launch, and a graph is one launch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trt_engines.export import Outputs, Run

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""A batch is filled up to the next of these: at most twice the work, nine graphs at most."""


@dataclass(frozen=True)
class Captured:
    """One graph: where its input lies, where its answers will, and how to run it."""

    crops: Tensor
    answers: Outputs
    replay: Callable[[], None]


Capture = Callable[[Run, tuple[int, ...]], Captured]


def captured(run: Run, shape: tuple[int, ...]) -> Captured:
    """Record what a batch of this shape launches; the device must be CUDA."""
    crops = torch.zeros(shape, dtype=torch.uint8, device="cuda")
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries choose kernels and take memory at the first calls: not while recording
        for _ in range(3):
            run(crops)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # other threads may load an engine meanwhile; only this one's calls are recorded
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        answers = run(crops)
    return Captured(crops, answers, graph.replay)


class Graphed:
    """Answers as `run` does; for one thread. A bucket is recorded when the first batch needs it."""

    def __init__(self, run: Run, capture: Capture = captured) -> None:
        self._run, self._capture = run, capture
        self._graphs: dict[int, Captured] = {}

    def __call__(self, crops: Tensor) -> Outputs:
        """Crops (B, H, W, 3) uint8 -> what `run` answers; batches beyond the largest bucket are run as they are."""
        size = len(crops)
        bucket = next((bucket for bucket in BUCKETS if bucket >= size), None)
        if bucket is None or not size:
            return self._run(crops)
        graph = self._graphs.get(bucket)
        if graph is None:
            graph = self._graphs[bucket] = self._capture(self._run, (bucket, *crops.shape[1:]))
        graph.crops[:size].copy_(crops, non_blocking=True)  # behind them lie older crops: judged, never answered
        graph.replay()
        return tuple(answer[:size].clone() for answer in graph.answers)
