"""Our calls fit torch-tensorrt, which needs a GPU to be imported: its source is read instead; broken ones are a word.

tests/media/torch_tensorrt_2.13.0.json is what `tests/signatures.py` read from the wheel on 2026-11-23; where the
package is installed, it is read anew.
"""

import ast
import json
import sys
from pathlib import Path

import networks
import pytest
import signatures
import torch

import trt_engines
from scanner.detection.engines import compilers
from trt_engines import compilers as importing
from trt_engines import dynamo
from trt_engines.compilers import imported
from trt_engines.errors import BuildFailed, NoCompiler
from trt_engines.flavours import Graph, flavours
from trt_engines.parser import OnnxTensorRT

SOURCES = sorted(Path(trt_engines.__file__).parent.glob("*.py"))
WITHOUT_GPU = not torch.cuda.is_available()


@pytest.fixture(scope="module", params=["recorded", "installed"])
def parameters(request):
    here = signatures.installed()
    if request.param == "installed" and here is not None:
        return signatures.signatures(here)
    return json.loads(signatures.RECORDED.read_text())


def calls():
    """Every call of the package in dynamo.py: its dotted name, how many positional, which keywords."""
    for node in ast.walk(ast.parse(Path(dynamo.__file__).read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).replace("_package()", "package")
            if name.startswith("package.") and "(" not in name:
                yield name.removeprefix("package."), len(node.args), [k.arg for k in node.keywords if k.arg]


def test_every_call_fits_the_signature(parameters):
    made = list(calls())
    assert {name for name, _, _ in made} == set(parameters)
    for name, positional, keywords in made:
        known = parameters[name]
        assert set(keywords) <= set(known), name
        assert not set(keywords) & set(known[:positional]), f"{name} gets one twice"


def test_every_option_of_the_compiler_exists(parameters):
    assert set(dynamo.OPTIONS) <= set(parameters["dynamo.compile"])


@pytest.mark.parametrize("package", ["torch_tensorrt", "tensorrt_rtx"])
def test_a_compiler_is_named_in_one_file(package):
    named = {
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value == package
    }
    assert len(named) == 1


# ---------------------------------------------------------------- missing and broken packages


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ('Exception("import error: Could not find libnvinfer.so.11")', "Exception: import error: Could not find"),
        ('AssertionError("Torch not compiled with CUDA enabled")', "AssertionError: Torch not compiled"),
        ('OSError("libtorch_cuda.so: cannot open shared object file")', "OSError: libtorch_cuda.so"),
        ('ImportError("cannot import name")', "ImportError: cannot import name"),
        ('RuntimeError("driver too old\\nmore")', r"RuntimeError: driver too old\)"),
    ],
)
def test_a_package_that_breaks_at_import_is_a_word_however_it_breaks(failure, words, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_compiler.py").write_text(f"print('noise')\nraise {failure}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(NoCompiler, match=words):
        imported("broken_compiler", "install it")
    assert capsys.readouterr().out == ""
    assert "broken_compiler" not in sys.modules


def test_a_package_that_is_not_there_says_what_to_install():
    with pytest.raises(NoCompiler, match="no_such_compiler is not installed; pip install it"):
        imported("no_such_compiler", "pip install it")


def test_only_whole_python_ends_what_takes_everything(monkeypatch):
    def interrupt(_name):
        raise KeyboardInterrupt

    monkeypatch.setattr(importing.importlib.util, "find_spec", lambda _name: True)
    monkeypatch.setattr(importing.importlib, "import_module", interrupt)
    with pytest.raises(KeyboardInterrupt):
        imported("any", "")


@pytest.mark.skipif(not WITHOUT_GPU, reason="what there is to say without a GPU")
def test_without_a_gpu_every_compiler_says_why_and_what_torch_runs_is_left():
    able, unable = compilers()
    assert list(able) == ["exported"]
    assert set(unable) == set(flavours()) - {"exported"}
    assert all("NVIDIA GPU" in why for why in unable.values())


# ---------------------------------------------------------------- TensorRT's own API, by a stand-in that records


def test_an_onnx_engine_needs_onnx(tmp_path):
    graph = Graph(networks.program(), None, networks.crops(3), networks.PROFILE)
    with pytest.raises(NoCompiler, match=r"laescan\[onnx\]"):
        OnnxTensorRT("tensorrt", "tensorrt", "", ["fp16"]).build(graph, tmp_path / "engine")


def test_what_a_compiler_cannot_take_is_its_own_words(tmp_path, monkeypatch):
    class Parser:
        num_errors = 1

        def __init__(self, *_):
            pass

        def parse_from_file(self, _path):
            return False

        def get_error(self, _number):
            return self

        def desc(self):
            return "first input has type UInt8\nmore"

    class Anything:
        STRONGLY_TYPED = 0
        OnnxParser, ERROR, WARNING = Parser, 1, 2

        def __init__(self, *_):
            pass

        def __getattr__(self, _name):
            return Anything

    stand_in = Anything()
    stand_in.ILogger = type("ILogger", (), {"ERROR": 1, "WARNING": 2, "__init__": lambda _self: None})
    stand_in.NetworkDefinitionCreationFlag = type("Flag", (), {"STRONGLY_TYPED": 0})
    monkeypatch.setattr(OnnxTensorRT, "_package", lambda _self: stand_in)
    graph = Graph(networks.program(), tmp_path / "graph.onnx", networks.crops(3), networks.PROFILE)
    with pytest.raises(BuildFailed, match=r"tensorrt does not take the graph: first input has type UInt8$"):
        OnnxTensorRT("tensorrt", "tensorrt", "", ["fp16"]).build(graph, tmp_path / "engine")
