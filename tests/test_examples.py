"""What is shown works: every Python example as it is written, the types it promises, and the example pictures."""

import re
import shutil
import subprocess
import sys
import textwrap
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import elsewhere
import msgspec
import numpy as np
import pytest
from hatchling.builders.wheel import WheelBuilder
from sitters import portraits

import scanner
from scanner.bulk import shards
from scanner.training import examples
from scanner.training.portraits import load, save, split_of

ROOT = Path(__file__).parent.parent
NAMES = {"example_original", "example_swap", "example_attribute", "example_inpaint"}


def people(split, source="london_neutral"):
    """The six sitters under other names, all of one split and source."""
    names = (str(n) for n in range(1000) if split_of(str(n)) == split)
    return [replace(p, identity=name, source=source) for p, name in zip(portraits(), names, strict=False)]


def test_only_consenting_people_of_the_test_split_are_shown():
    cast = people("test")
    crowd = [*people("train"), *people("test", source="fellows"), *cast]
    pictures = examples.examples(crowd)
    assert set(pictures) == NAMES
    assert (pictures["example_original"] == cast[0].canvas).all()
    for picture, portrait in zip(list(pictures.values())[1:], cast[1:], strict=False):
        changed = (picture != portrait.canvas).any(2).mean()
        assert 0 < changed < 0.7, "a part of the picture is forged, and only a part"


def test_the_same_examples_come_out_every_time():
    first, again = (examples.examples(people("test")) for _ in range(2))
    assert all((first[name] == again[name]).all() for name in NAMES)


def test_the_command_writes_one_jpeg_each(tmp_path, monkeypatch: pytest.MonkeyPatch):
    save(people("test"), tmp_path / "portraits.npz")
    assert np.array_equal(load(tmp_path / "portraits.npz")[0].canvas, portraits()[0].canvas)
    arguments = ["examples", "--portraits", str(tmp_path / "portraits.npz"), "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    examples.main()
    assert {path.stem for path in tmp_path.glob("*.jpg")} == NAMES


# ---------------------------------------------------------------- from a program


def shown():
    """Every Python example that a reader meets: the package's own, then the README's but those for Ray and Spark."""
    inside = [textwrap.dedent(found) for found in re.findall(r"(?m)(?:^    .*\n|^\n)+", scanner.__doc__)]
    readme = re.sub(r"(?s)<!-- (ray|spark) -->.*?<!-- /\1 -->", "", elsewhere.README.read_text(encoding="utf-8"))
    return [text for text in inside if "import" in text] + re.findall(r"(?ms)^```python\n(.*?)^```", readme)


def python(code, folder):
    """What a program of its own prints, started beside the pictures that it names."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


IN_A_NOTEBOOK = """
import asyncio
from scanner import scan

async def notebook():  # a loop runs there already
    return scan("nowhere.jpg")

print(asyncio.run(notebook()).failure.code)
"""


def test_every_python_example_runs_as_it_is_written(tmp_path):
    shutil.copy(ROOT / "tests/media/example_inpaint.jpg", tmp_path / "portrait.jpg")
    shutil.copy(ROOT / "tests/media/example_original.jpg", tmp_path / "other.jpg")
    examples_shown = shown()
    assert "from scanner import scan\n" in examples_shown[0]
    printed = python("\n".join([*examples_shown, IN_A_NOTEBOOK]), tmp_path).splitlines()
    label, score = printed[0].split()
    assert label in {"manipulated", "inconclusive", "authentic"}
    assert 0 < float(score) < 1
    assert printed[-1] == "gone"


@pytest.mark.parametrize("name", ["ray", "spark"])
def test_examples_for_other_programs_are_python_and_call_what_there_is(name):
    code = elsewhere.lines_of(name)
    compile(code, name, "exec")
    assert "from scanner.bulk.shards import scan_shard\n" in code
    assert callable(shards.scan_shard)


def test_importing_the_package_imports_nothing_and_every_name_is_there(tmp_path):
    code = """
        import sys
        before = set(sys.modules)
        import scanner
        assert not {name for name in sys.modules if name.startswith("scanner.")}
        assert not {"torch", "cv2", "av", "numpy", "msgspec"} & (set(sys.modules) - before)
        from scanner import Outcome, Scanner, Settings, scan
        assert "torch" not in sys.modules
        assert all(hasattr(scanner, name) for name in scanner.__all__)
        assert not hasattr(scanner, "nothing")
    """
    python(textwrap.dedent(code), tmp_path)


CONSUMER = """
from pathlib import Path
from scanner import Label, Outcome, Scanner, Settings, scan
from scanner import skan

outcome: Outcome = scan(Path("a.jpg"), settings=Settings(threads=1))
if outcome.verdict:
    label: Label = outcome.verdict.label
    score: float | None = outcome.verdict.score
with Scanner(Settings()) as scanner:
    text: str = scanner.scan_blocking("b.jpg").outcome.source

outcome.skore
scan(1)
"""


def test_the_installed_wheel_brings_its_types(tmp_path):
    """In an environment of its own, into which only the wheel and what its types are made of are installed."""
    venv.create(tmp_path / "venv", symlinks=True)
    (site,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(site)
    (site / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    (tmp_path / "consumer.py").write_text(CONSUMER)
    options = ["--strict", "--python-executable", tmp_path / "venv/bin/python", "--cache-dir", tmp_path / "cache"]
    command = [sys.executable, "-m", "mypy", *options, "consumer.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    unknown, wrong, odd, told = done.stdout.splitlines()
    assert 'Module "scanner" has no attribute "skan"' in unknown
    assert '"Outcome" has no attribute "skore"' in wrong
    assert 'Argument 1 to "scan" has incompatible type "int"' in odd
    assert told.startswith("Found 3 errors in 1 file")
