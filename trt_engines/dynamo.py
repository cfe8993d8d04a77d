"""An exported graph in, an engine by torch_tensorrt out: the only file that names that package.

One reason: it compiles ahead of time what `torch.export` gives, and saves it as a program that loads without compiling.
torch-tensorrt-rtx installs under the same import name, so TensorRT for RTX goes the same way where it is that one.
Precision is the graph's own: since 2.12 the package types networks strongly and ignores `enabled_precisions`.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from trt_engines.compilers import imported
from trt_engines.errors import BuildFailed, NoCompiler, Unfit
from trt_engines.export import INPUT, Run
from trt_engines.flavours import Graph
from trt_engines.manifest import Precision

PACKAGE = "torch_tensorrt"
OPTIONS: dict[str, Any] = {
    "require_full_compilation": True,  # a part that fell back to torch would cost a launch per operator, unseen
    "min_block_size": 1,
    "immutable_weights": True,
    "cache_built_engines": False,  # our store is the cache: with a manifest, a digest and an owner
    "reuse_cached_engines": False,
    "pass_through_build_failures": True,
}
"""What we ask of `dynamo.compile`; test_trt_calls.py holds the names against the package's source."""


class TorchTensorRT:
    """torch_tensorrt, whichever TensorRT it was installed with."""

    name = "torch-tensorrt"
    precisions: Sequence[Precision] = ("fp16", "bf16", "fp32")
    needs_cuda = True
    needs_onnx = False

    def versions(self) -> dict[str, str]:
        """Of the package and of the TensorRT under it."""
        package = _package()
        below = imported("tensorrt", "install torch-tensorrt again")  # the package puts RTX under this name, too
        return {"torch-tensorrt": str(package.__version__), "tensorrt": str(below.__version__)}

    def build(self, graph: Graph, path: Path) -> None:
        """Compile ahead of time and save; raises BuildFailed, NoCompiler."""
        package, profile = _package(), graph.profile
        rest = tuple(graph.example.shape[1:])
        spec = package.Input(
            min_shape=(profile.least, *rest),
            opt_shape=(profile.best, *rest),
            max_shape=(profile.most, *rest),
            dtype=graph.example.dtype,
            name=INPUT,
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a hundred of its own
                compiled = package.dynamo.compile(graph.program, arg_inputs=[spec], **OPTIONS)
                package.save(compiled, str(path), output_format="exported_program", arg_inputs=[spec], retrace=True)
        except (RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError) as error:
            msg = f"torch_tensorrt cannot build it ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
            raise BuildFailed(msg) from error

    def load(self, path: str, device: str) -> Run:
        """The engine as a module on the GPU; raises NoCompiler, Unfit."""
        del device
        try:
            with Path(path).open("rb") as file:  # handed on to torch.export.load, which dislikes names without .pt2
                run: Run = _package().load(file).module()
        except (RuntimeError, ValueError, AssertionError) as error:
            msg = f"torch_tensorrt cannot load it ({str(error).partition(chr(10))[0]}); build it again"
            raise Unfit(msg) from error
        return run


def _package() -> ModuleType:
    package = imported(PACKAGE, "pip install 'laescan[trt]'")
    if not torch.cuda.is_available():
        msg = "torch_tensorrt needs an NVIDIA GPU, and torch finds none"
        raise NoCompiler(msg)
    return package
