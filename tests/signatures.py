"""A torch-tensorrt wheel in, the parameters of the functions that we call out: `python tests/signatures.py FOLDER`.

FOLDER is an unpacked wheel. The package cannot be imported without a GPU, so its source is read, not run.
Without FOLDER the installed package is read, where there is one.
"""

import ast
import importlib.util
import json
import sys
from pathlib import Path

RECORDED = Path(__file__).parent / "media" / "torch_tensorrt_2.13.0.json"
FUNCTIONS = {
    "dynamo.compile": "dynamo/_compiler.py",
    "save": "_compile.py",
    "load": "_compile.py",
}


def signatures(package: Path) -> dict[str, list[str]]:
    """Function -> its parameters, `Input` -> the keywords that its __init__ looks for."""
    found = {}
    for name, file in FUNCTIONS.items():
        body = ast.parse((package / file).read_text()).body
        (function,) = (one for one in body if isinstance(one, ast.FunctionDef) and one.name == name.rpartition(".")[2])
        arguments = function.args
        found[name] = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    body = ast.parse((package / "_Input.py").read_text()).body
    (spec,) = (one for one in body if isinstance(one, ast.ClassDef) and one.name == "Input")
    (made,) = (one for one in spec.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    words = {node.value for node in ast.walk(made) if isinstance(node, ast.Constant)}
    found["Input"] = sorted(word for word in words if isinstance(word, str) and word.isidentifier())
    return found


def installed() -> Path | None:
    """Where the package lies, without importing it."""
    spec = importlib.util.find_spec("torch_tensorrt")
    return Path(spec.origin).parent if spec and spec.origin else None


if __name__ == "__main__":
    folder = Path(sys.argv[1]) / "torch_tensorrt" if len(sys.argv) > 1 else installed()
    if folder is None:
        sys.exit("torch-tensorrt is not installed; give the folder of an unpacked wheel")
    RECORDED.write_text(json.dumps(signatures(folder), indent=1) + "\n")
