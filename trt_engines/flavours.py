"""The ways to an engine, best first, and what each of them has to do.

    torch-tensorrt   the exported graph through torch_tensorrt (dynamo), TensorRT or TensorRT for RTX below it
    tensorrt         the same graph as ONNX through TensorRT's own parser; 8-bit engines are built so
    tensorrt-rtx     likewise through TensorRT for RTX, which builds engines without a GPU
    exported         the exported graph itself, by torch alone, on any device: the yardstick, and what a CPU can test

One reason: whoever builds and whoever loads must mean the same thing by an engine of a flavour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.export import ExportedProgram

from trt_engines.export import Run, quietly
from trt_engines.manifest import Precision, Profile


@dataclass(frozen=True)
class Graph:
    """What a compiler is given."""

    program: ExportedProgram
    onnx: Path | None  # the same as ONNX, None where the packages that write it are missing
    example: Tensor  # crops on the device
    profile: Profile


class Flavour(Protocol):
    """One way to an engine."""

    name: str
    precisions: Sequence[Precision]
    needs_cuda: bool
    needs_onnx: bool

    def versions(self) -> dict[str, str]:
        """What its engines depend on; raises NoCompiler where it cannot build or run here."""

    def build(self, graph: Graph, path: Path) -> None:
        """Write the engine to `path`; raises BuildFailed, NoCompiler."""

    def load(self, path: str, device: str) -> Run:
        """The engine, ready to run; raises NoCompiler, Unfit when it cannot run here."""


class Exported:
    """The graph as torch saves it."""

    name = "exported"
    precisions: Sequence[Precision] = ("fp32", "bf16", "fp16")
    needs_cuda = False
    needs_onnx = False

    def versions(self) -> dict[str, str]:
        """torch's own is in every manifest."""
        return {}

    def build(self, graph: Graph, path: Path) -> None:
        """Save the graph and its weights."""
        with quietly():
            torch.export.save(graph.program, path)

    def load(self, path: str, device: str) -> Run:
        """The graph as a module, where its weights were when it was saved."""
        del device
        with Path(path).open("rb") as file:  # torch dislikes names that do not end in .pt2
            run: Run = torch.export.load(file).module()
        return run


def flavours() -> Mapping[str, Flavour]:
    """All of them, best first."""
    from trt_engines.dynamo import TorchTensorRT  # noqa: PLC0415 - each names its compiler, none imports it here
    from trt_engines.parser import OnnxTensorRT  # noqa: PLC0415

    common: tuple[Precision, ...] = ("fp16", "bf16", "fp32", "fp8")
    all_of_them: tuple[Flavour, ...] = (
        TorchTensorRT(),
        OnnxTensorRT("tensorrt", "tensorrt", "pip install 'laescan[trt]'", (*common, "int8")),
        # 1.5.0.114 built our graph in these four without a GPU, and refused int8 convolutions ("CHECK(dtype == ...")
        OnnxTensorRT("tensorrt-rtx", "tensorrt_rtx", "pip install 'laescan[trt-rtx]'", common),
        Exported(),
    )
    return {flavour.name: flavour for flavour in all_of_them}
