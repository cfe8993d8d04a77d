"""An ONNX graph in, an engine by TensorRT's own Python API out; `tensorrt` and `tensorrt_rtx` have the same one.

One reason: 8-bit engines come from explicit Q/DQ nodes, which the ONNX parser reads; TensorRT for RTX is a drop-in for
it and builds without a GPU, so that every operator of our graph is known to be supported before one is at hand.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from trt_engines.compilers import imported
from trt_engines.errors import BuildFailed, NoCompiler, Unfit
from trt_engines.export import INPUT, OUTPUTS, Outputs, Run
from trt_engines.flavours import Graph
from trt_engines.manifest import Precision

log = logging.getLogger(__name__)


class OnnxTensorRT:
    """TensorRT, or TensorRT for RTX, on its own."""

    needs_cuda = True
    needs_onnx = True

    def __init__(self, name: str, package: str, install: str, precisions: Sequence[Precision]) -> None:
        self.name, self._package_name, self._install, self.precisions = name, package, install, precisions

    def versions(self) -> dict[str, str]:
        """Of the package."""
        return {self._package_name: str(self._package().__version__)}

    def build(self, graph: Graph, path: Path) -> None:
        """Parse, build, write; raises BuildFailed with the compiler's own words, NoCompiler."""
        if graph.onnx is None:
            msg = "this engine is built from ONNX; pip install 'laescan[onnx]'"
            raise NoCompiler(msg)
        trt = self._package()
        said = _log(trt)
        builder = trt.Builder(said)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, said)
        if not parser.parse_from_file(str(graph.onnx)):
            words = [parser.get_error(i).desc().partition("\n")[0] for i in range(parser.num_errors)]
            msg = f"{self.name} does not take the graph: {'; '.join(words)}"
            raise BuildFailed(msg)
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        rest = tuple(graph.example.shape[1:])
        sizes = (graph.profile.least, graph.profile.best, graph.profile.most)
        profile.set_shape(INPUT, *((size, *rest) for size in sizes))
        config.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            msg = f"{self.name} cannot build the graph: {'; '.join(said.errors[-3:])}"
            raise BuildFailed(msg)
        path.write_bytes(memoryview(engine))

    def load(self, path: str, device: str) -> Run:
        """The engine on the GPU; raises NoCompiler, Unfit."""
        trt = self._package()
        said = _log(trt)
        # no GPU, another GPU or another version: it logs, and answers None
        engine = trt.Runtime(said).deserialize_cuda_engine(Path(path).read_bytes())
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            msg = f"{self.name} cannot run it here: {'; '.join(said.errors[-3:])}; build it again"
            raise Unfit(msg)
        return _Context(context, device)

    def _package(self) -> ModuleType:
        return imported(self._package_name, self._install)


class _Context:
    """One engine with its buffers; answers on torch's current stream."""

    def __init__(self, context: Any, device: str) -> None:  # noqa: ANN401 - the package has no types
        self._context, self._device = context, device

    def __call__(self, crops: Tensor) -> Outputs:
        """Crops (B, H, W, 3) uint8 on the device -> what the graph answers, fp32."""
        crops = crops.contiguous()
        self._context.set_input_shape(INPUT, tuple(crops.shape))
        self._context.set_tensor_address(INPUT, crops.data_ptr())
        answers = []
        for name in OUTPUTS:
            answer = torch.empty(tuple(self._context.get_tensor_shape(name)), device=self._device)
            self._context.set_tensor_address(name, answer.data_ptr())
            answers.append(answer)
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            msg = f"the engine refused a batch of {len(crops)}"
            raise RuntimeError(msg)
        return tuple(answers)


def _log(trt: ModuleType) -> Any:  # noqa: ANN401 - a class that exists only when the package does
    """What the compiler says, kept for our own words and passed on to our log."""

    class Said(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, words: str) -> None:  # noqa: ANN401
            if severity <= trt.ILogger.ERROR:
                self.errors.append(words.partition("\n")[0])
            log.log(logging.WARNING if severity <= trt.ILogger.WARNING else logging.DEBUG, "%s", words)

    return Said()
