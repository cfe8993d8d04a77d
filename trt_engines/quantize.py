"""The range of every convolution's input, then an ONNX graph with 8-bit convolutions in it (explicit Q/DQ nodes).

    module, calibration crops -> ranges -> graph with QuantizeLinear, DequantizeLinear before each convolution

One reason: TensorRT, TensorRT for RTX and ONNX Runtime all read these nodes, and the guard can judge the result on a
CPU; NVIDIA's own tool (modelopt) needs 15 more packages to put the same nodes there.
Weights get one scale per filter (fp8: per tensor, which is what its kernels take), inputs one scale per tensor.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from trt_engines.errors import BuildFailed
from trt_engines.manifest import Precision

LARGEST = {"int8": 127.0, "fp8": 448.0}
KIND = {"int8": TensorProto.INT8, "fp8": TensorProto.FLOAT8E4M3FN}
SHARE = 0.99995
"""Of an input's values that its range covers: one outlier in 20,000 would else cost all others a bit."""


def input_ranges(module: nn.Module, batches: Sequence[Tensor], *, besides: Sequence[str] = ()) -> dict[str, float]:
    """Name of each 3x3 convolution -> largest |input| that matters, over these batches; `besides` stay as they are."""
    found: dict[str, list[float]] = {}
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3) and name not in besides:
            hooks.append(layer.register_forward_pre_hook(_watch(found.setdefault(name, []))))
    try:
        with torch.inference_mode():
            for batch in batches:
                module(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: max(values) for name, values in found.items()}


def quantized(source: Path, target: Path, ranges: dict[str, float], precision: Precision) -> None:
    """Write `source` with 8-bit convolutions to `target`; raises BuildFailed when a convolution is not in the graph."""
    model = onnx.load(source)
    graph = model.graph
    weights = {one.name: one for one in graph.initializer}
    nodes = []
    left = dict(ranges)
    for node in graph.node:
        layer = node.input[1].removesuffix(".weight") if node.op_type == "Conv" else ""
        if layer in left:
            weight = weights[node.input[1]]
            dtype = helper.tensor_dtype_to_np_dtype(weight.data_type)
            nodes += _at_input(graph, node, left.pop(layer), precision, dtype)
            nodes += _at_weight(graph, node, weight, precision)
        nodes.append(node)
    if left:
        msg = f"the graph has no convolution {', '.join(left)}; torch names its weights otherwise now"
        raise BuildFailed(msg)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def _watch(values: list[float]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes = inputs[0].detach().abs().flatten().float()
        # a histogram's quantile: torch.quantile takes 16 M values at most
        kept = max(1, round(len(sizes) * (1 - SHARE)))
        values.append(float(torch.topk(sizes, kept).values[-1]))

    return hook


def _at_input(
    graph: onnx.GraphProto, node: onnx.NodeProto, largest: float, precision: Precision, dtype: np.dtype[Any]
) -> list[onnx.NodeProto]:
    scale = np.array(max(largest, 1e-3) / LARGEST[precision], dtype)
    return _pair(graph, node, 0, scale, KIND[precision], axis=None)


def _at_weight(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: onnx.TensorProto, precision: Precision
) -> list[onnx.NodeProto]:
    values = np.abs(numpy_helper.to_array(weight))
    by_filter = precision == "int8"
    largest = values.max((1, 2, 3)) if by_filter else values.max()
    scale = np.asarray(np.maximum(largest, 1e-3) / LARGEST[precision], values.dtype)  # fp16 ends near 1e-7
    return _pair(graph, node, 1, scale, KIND[precision], axis=0 if by_filter else None)


def _pair(
    graph: onnx.GraphProto, node: onnx.NodeProto, slot: int, scale: npt.NDArray[Any], kind: int, *, axis: int | None
) -> list[onnx.NodeProto]:
    """Quantise one input of a node and back; the compiler fuses the two into its 8-bit kernel."""
    stem, given = f"{node.output[0]}_{slot}", node.input[slot]
    zero = helper.make_tensor(f"{stem}_zero", kind, scale.shape, [0] * scale.size)
    graph.initializer.extend([numpy_helper.from_array(scale, f"{stem}_scale"), zero])
    about: dict[str, Any] = {} if axis is None else {"axis": axis}
    tail = [f"{stem}_scale", f"{stem}_zero"]
    node.input[slot] = f"{stem}_back"
    return [
        helper.make_node("QuantizeLinear", [given, *tail], [f"{stem}_small"], name=f"{stem}_q", **about),
        helper.make_node("DequantizeLinear", [f"{stem}_small", *tail], [f"{stem}_back"], name=f"{stem}_dq", **about),
    ]
