"""A module in, its graph with a dynamic batch out, and the same as ONNX: what every compiler begins with.

One reason: a graph that does not say what the module says is found here, before minutes are spent on building it.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trt_engines.errors import BuildFailed, NoCompiler
from trt_engines.manifest import Profile

INPUT, OUTPUTS = "crops", ("raw", "attention", "probability")
EXACT = 1e-4
"""Largest difference of any output, relative to its largest value, between graph and module in fp32."""
ROUNDED = {torch.float32: EXACT, torch.float16: 1e-2, torch.bfloat16: 8e-2}
"""The same graph in other kernels may round elsewhere: half a unit in the last place, through eleven convolutions."""
OPSET = 22
"""The first in which a convolution takes bf16."""
Outputs = tuple[Tensor, ...]
Run = Callable[[Tensor], Outputs]


def export(module: nn.Module, example: Tensor, profile: Profile) -> ExportedProgram:
    """The graph for any batch of the profile; raises BuildFailed unless it says what the module says.

    `example` (at least 2, ...) are crops as they come; the guard runs them in several batch sizes.
    """
    batch = Dim("batch", min=1, max=max(2, profile.most))
    with quietly():
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    limit = max((ROUNDED[parameter.dtype] for parameter in module.parameters()), default=EXACT)
    hold_to(program.module(), module, example, sizes=range(1, len(example) + 1), limit=limit)
    return program


def hold_to(run: Run, module: Run, crops: Tensor, *, sizes: Sequence[int], limit: float) -> float:
    """The worst relative difference over batches of these sizes; raises BuildFailed above the limit."""
    worst = 0.0
    with torch.inference_mode():
        for size in sizes:
            for name, ours, theirs in zip(OUTPUTS, run(crops[:size]), module(crops[:size]), strict=True):
                scale = max(float(theirs.abs().max()), 1e-6)
                found = float((ours - theirs).abs().max()) / scale
                worst = max(worst, found)
                if not found <= limit:  # also when it is no number
                    msg = f"{name} of {size} crops differs by {found:.1e} from the module's (limit {limit:g})"
                    raise BuildFailed(msg)
    return worst


def write_onnx(program: ExportedProgram, example: Tensor, path: Path) -> None:
    """The graph as ONNX with a dynamic batch, checked; raises NoCompiler without the packages that write it."""
    try:
        import onnx  # noqa: PLC0415 - an optional extra
        import onnxscript  # noqa: F401, PLC0415 - what torch writes ONNX with
    except ImportError as error:
        msg = f"ONNX cannot be written without {error.name}; pip install 'laescan[onnx]'"
        raise NoCompiler(msg) from error
    with quietly():
        written = torch.onnx.export(
            program,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
        )
    assert written is not None  # noqa: S101 - it is with dynamo=True and no file name
    written.save(path)
    onnx.checker.check_model(onnx.load(path), full_check=True)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """torch warns of its own deprecations, of a torchvision that nobody needs, and prints progress."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
