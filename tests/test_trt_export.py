"""What compilers begin with says what the network says: as a graph, as ONNX, for any batch, and in 8 bits nearly so."""

import networks
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from scanner.detection.engines import STEM
from trt_engines import quantize
from trt_engines.errors import BuildFailed, NoCompiler
from trt_engines.export import INPUT, OUTPUTS, export, hold_to, write_onnx
from trt_engines.manifest import Profile


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    write_onnx(networks.program(), networks.crops(3), path)
    return path


def answers(path, crops):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"]).run(None, {INPUT: crops.numpy()})


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_the_graph_says_what_the_network_says_in_every_batch(size):
    worst = hold_to(networks.program().module(), networks.module(), networks.crops(), sizes=[size], limit=1e-6)
    assert worst <= 1e-6


def test_a_graph_that_says_something_else_is_refused():
    class Liar(torch.nn.Module):
        def forward(self, crops):
            raw, attention, probability = networks.module()(crops)
            return raw + 1e-3, attention, probability

    with pytest.raises(BuildFailed, match="raw of 2 crops differs"):
        hold_to(Liar(), networks.module(), networks.crops(), sizes=[2], limit=1e-4)


def test_no_number_is_no_answer():
    def broken(crops):
        return tuple(answer * float("nan") for answer in networks.module()(crops))

    with pytest.raises(BuildFailed, match="differs by nan"):
        hold_to(broken, networks.module(), networks.crops(), sizes=[1], limit=1e-4)


def test_a_network_whose_batch_cannot_vary_is_refused():
    class Fixed(torch.nn.Module):
        def forward(self, crops):
            return crops.float().reshape(3, -1).mean(1), crops, crops

    with pytest.raises((BuildFailed, torch._dynamo.exc.UserError)):
        export(Fixed(), networks.crops(3), Profile(1, 4, 8))


@pytest.mark.parametrize("size", [1, 3, 8])
def test_onnx_says_the_same_by_another_runtime(graph, size):
    with torch.no_grad():
        expected = networks.module()(networks.crops(size))
    for name, found, right in zip(OUTPUTS, answers(graph, networks.crops(size)), expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-4, err_msg=name)


def test_onnx_has_a_free_batch_bytes_in_and_floats_out(graph):
    described = onnx.load(graph).graph
    (crops,), outputs = described.input, described.output
    assert crops.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    for one in (crops, *outputs):
        batch, *rest = one.type.tensor_type.shape.dim
        assert batch.dim_param
        assert all(side.dim_value for side in rest)
    assert [one.name for one in outputs] == list(OUTPUTS)
    assert {one.type.tensor_type.elem_type for one in outputs} == {onnx.TensorProto.FLOAT}


def test_bytes_become_floats_before_anything_else(graph):
    """TensorRT for RTX 1.5 refused the graph when bytes were reshaped first: "first input has type UInt8"."""
    takes = [node.op_type for node in onnx.load(graph).graph.node if INPUT in node.input]
    assert takes in (["Cast"], ["Cast", "Shape"])


def test_without_the_packages_that_write_onnx_the_word_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(NoCompiler, match=r"laescan\[onnx\]"):
        write_onnx(networks.program(), networks.crops(3), tmp_path / "any.onnx")


# ---------------------------------------------------------------- 8 bits


def ranges():
    return quantize.input_ranges(networks.module(), networks.crops().split(4), besides=[STEM])


def test_every_convolution_but_the_stem_and_the_gate_gets_a_range():
    convolutions = [n for n, one in networks.module().named_modules() if isinstance(one, torch.nn.Conv2d)]
    assert set(ranges()) == set(convolutions) - {STEM, "encoder.gate"}
    assert all(0 < largest < 1e4 for largest in ranges().values())


def test_int8_moves_scores_a_little_and_puts_every_convolution_between_q_and_dq(graph, tmp_path):
    path = tmp_path / "int8.onnx"
    quantize.quantized(graph, path, ranges(), "int8")
    nodes = onnx.load(path).graph.node
    made_by = {name: node.op_type for node in nodes for name in node.output}
    around = [[made_by.get(name) for name in node.input[:2]] for node in nodes if node.op_type == "Conv"]
    assert around.count(["DequantizeLinear"] * 2) == len(ranges())
    before, after = answers(graph, networks.crops())[0], answers(path, networks.crops())[0]
    assert 0 < np.abs(after - before).max() < 0.1 * np.ptp(before)


def test_fp8_is_a_valid_graph_with_one_scale_per_tensor(graph, tmp_path):
    path = tmp_path / "fp8.onnx"
    quantize.quantized(graph, path, ranges(), "fp8")  # the checker is run on it
    model = onnx.load(path).graph
    kinds = {one.data_type for one in model.initializer if one.name.endswith("_zero")}
    assert kinds == {onnx.TensorProto.FLOAT8E4M3FN}
    assert all(not one.dims for one in model.initializer if one.name.endswith("_scale"))


def test_a_convolution_that_the_graph_does_not_have_is_told(graph, tmp_path):
    with pytest.raises(BuildFailed, match=r"no convolution encoder\.none"):
        quantize.quantized(graph, tmp_path / "any.onnx", {"encoder.none": 1.0}, "int8")


def test_a_range_leaves_one_value_in_20000_out():
    layer = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, bias=False))
    x = torch.full((1, 1, 200, 200), 0.5)
    x[..., 0, 0] = 1e6
    assert quantize.input_ranges(layer, [x]) == {"0": 0.5}
