"""What arrives is what was meant: hashed locks that agree with the pins, the same wheel twice, safe weights."""

import ast
import hashlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.utils import canonicalize_name
from test_house import closure, required

from scanner.detection.checkpoint import load_checkpoint
from scanner.detection.mtcnn import WEIGHTS_SHA256
from scanner.errors import BadWeights

ROOT = Path(__file__).parent.parent
LOCKS = {path.stem: path for path in sorted((ROOT / "docker" / "locks").glob("*.txt"))}
WEIGHTS = ROOT / "scanner" / "weights"
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")
)
OF_CUDA = re.compile(r"nvidia-|cuda-|triton$")  # brought and pinned by torch's CUDA build only
OF_OLDER_PYTHONS = {"async-timeout"}


def locked(name):
    """package -> (version, its hashes)."""
    found = {}
    for block in re.split(r"\n(?=\S)", LOCKS[name].read_text("utf-8").strip()):
        requirement, *hashes = re.sub(r"\s*\\?\n\s*", " ", block).split(" --hash=")
        package, version = requirement.split(";")[0].split("==")
        found[canonicalize_name(package)] = (version.strip(), [h.strip(" \\") for h in hashes])
    return found


def test_there_is_a_lock_for_each_image():
    assert set(LOCKS) == {"api", "build", "worker-cpu", "worker-cuda"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_package_has_the_pinned_version_and_its_hashes(name):
    for package, (version, hashes) in locked(name).items():
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", text) for text in hashes), package
        if not OF_CUDA.match(package):
            assert version.partition("+")[0] == PINNED[package], f"{package}: run `make lock`"


def test_the_workers_locks_are_what_laescan_asks_for():
    asked = closure(required({"cpu"})) | OF_OLDER_PYTHONS
    assert set(locked("worker-cpu")) == asked, "run `make lock`"
    assert {name for name in locked("worker-cuda") if not OF_CUDA.match(name)} == asked, "run `make lock`"
    assert locked("worker-cpu")["torch"][0].endswith("+cpu")


IMPORTED = """
import sys
import api.__main__, api.token_command, scanner.cli, scanner.commands.tokens
import scanner.fetching.gateway, scanner.service.roll
from scanner.settings import Settings
from api.app import connect, make_app
make_app(Settings(redis_url="redis://127.0.0.1:1"), connect("redis://127.0.0.1:1"))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_the_light_image_has_what_it_imports_and_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True, cwd=ROOT)
    providers = metadata.packages_distributions()
    used = {canonicalize_name(name) for top in done.stdout.split() for name in providers.get(top, [])}
    light = set(locked("api"))
    assert used - {"laescan", "setuptools"} <= light
    assert not light & {"torch", "numpy", "pillow", "av", "opencv-python-headless", "yt-dlp", "scipy"}


def test_the_wheel_is_the_same_twice(tmp_path):
    """The builder takes no time, owner or order from the machine (SOURCE_DATE_EPOCH, else a fixed date)."""
    digests = set()
    for number, umask in enumerate((0o022, 0o077)):
        before = os.umask(umask)
        try:
            (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path / str(number)), versions=["standard"])
        finally:
            os.umask(before)
        digests.add(hashlib.sha256(Path(path).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_weights_are_the_ones_that_were_noted():
    noted = dict(reversed(line.split()) for line in (WEIGHTS / "SHA256SUMS").read_text("utf-8").splitlines())
    noted["mtcnn.safetensors"] = WEIGHTS_SHA256  # not ours to make anew, so in the source
    assert {path.name for path in WEIGHTS.glob("*.safetensors")} == set(noted)
    for name, digest in noted.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == digest


def test_altered_weights_are_refused(tmp_path):
    altered = bytearray((WEIGHTS / "face.safetensors").read_bytes())
    altered[-1] ^= 1
    (tmp_path / "face.safetensors").write_bytes(altered)
    (tmp_path / "SHA256SUMS").write_bytes((WEIGHTS / "SHA256SUMS").read_bytes())
    with pytest.raises(BadWeights):
        load_checkpoint(tmp_path / "face.safetensors")


def calls(path):
    """Every call in a file as (its name, its keywords)."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}


def test_no_format_that_can_run_code_is_loaded():
    """Training's own checkpoints go through torch's weights_only; production reads safetensors alone."""
    for path in (path for top in ("scanner", "api", "trt_engines") for path in (ROOT / top).rglob("*.py")):
        for name, words in calls(path):
            assert not re.fullmatch(
                r"c?[pP]ickle\.\w*(load|Unpickler)\w*|joblib\.load|torch\.jit\.load|marshal\.loads?", name
            ), path
            assert name != "torch.load" or words.get("weights_only") == "True", path
            assert name != "np.load" or words.get("allow_pickle", "False") == "False", path
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split(
        "\n"
    )
    suffixes = {".pt", ".pth", ".pkl", ".ckpt", ".bin", ".joblib", ".h5"}
    assert [name for name in tracked if Path(name).suffix in suffixes] == []
