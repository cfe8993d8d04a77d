"""The extension without a browser: types, lint, unit tests in node, languages, rights, packages, words held to ours."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from node import EXTENSION, install, node

from scanner import wording
from scanner.contract import Label
from scanner.pipeline import STAGES
from scanner.report import palette
from scanner.report.overlay import STRONG

TESTS = Path(__file__).parent / "extension"
SOURCES = sorted(
    path
    for folder in ("background", "content", "options", "popup", "shared")
    for path in (EXTENSION / folder).iterdir()
    if path.suffix in {".js", ".css", ".html", ".ts"}
)
LANGUAGES = ("en", "de")


@pytest.fixture(scope="module")
def tools():
    install()
    return EXTENSION / "node_modules"


@pytest.fixture(scope="module")
def builder():
    scope = {"__file__": str(EXTENSION / "build.py"), "__name__": "build"}
    exec((EXTENSION / "build.py").read_text(encoding="utf-8"), scope)  # a script beside the package, not of it
    return scope


def messages(language):
    return json.loads((EXTENSION / "_locales" / language / "messages.json").read_text(encoding="utf-8"))


def test_types_hold(tools):
    answer = node(str(tools / "typescript" / "bin" / "tsc"), "--noEmit", "-p", ".")
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.test.js")), ids=lambda path: path.name)
def test_unit_tests_pass(path):
    answer = node("--test", str(path))
    assert answer.returncode == 0, answer.stdout


def test_mozillas_linter_finds_no_error(tools, builder, tmp_path):
    package = builder["build"]("firefox", tmp_path)
    answer = node(str(tools / "addons-linter" / "bin" / "addons-linter"), "--output=json", str(package))
    found = json.loads(answer.stdout)
    assert found["errors"] == []
    assert found["warnings"] == []


def test_packages_are_the_same_bytes_whenever_they_are_built(builder, tmp_path):
    for browser in ("chromium", "firefox"):
        first, second = (builder["build"](browser, tmp_path / name).read_bytes() for name in ("a", "b"))
        assert first == second
    with zipfile.ZipFile(builder["build"]("firefox", tmp_path)) as package:
        names = set(package.namelist())
        manifest = json.loads(package.read("manifest.json"))
    assert manifest["background"]["scripts"] == ["background/worker.js"]
    assert not [
        name for name in names if name.endswith((".py", ".ts")) or "node_modules" in name or name == "package.json"
    ]
    assert {path.relative_to(EXTENSION).as_posix() for path in SOURCES if path.suffix != ".ts"} <= names


def test_rights_are_the_least():
    manifest = json.loads((EXTENSION / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["permissions"] == ["activeTab", "contextMenus", "scripting", "storage"]
    assert manifest["host_permissions"] == ["http://127.0.0.1/*"]
    assert not {"content_scripts", "web_accessible_resources", "externally_connectable"} & set(manifest)
    policy = manifest["content_security_policy"]["extension_pages"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_are_small_checked_and_set_text_only(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    if path.suffix == ".js":
        assert text.startswith("// @ts-check\n// ")
        assert (
            re.findall(r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|new Function)\b", text) == []
        )
        assert re.findall(r"\b(?:TO" r"DO|FIX" r"ME)\b|console\.", text) == []


def test_both_languages_say_all_that_is_asked_for_and_nothing_else():
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*SOURCES, EXTENSION / "manifest.json"])
    there = messages("en")
    for language in LANGUAGES:
        other = messages(language)
        assert list(other) == list(there)
        for name, entry in other.items():
            assert sorted(re.findall(r"\$\d", entry["message"])) == sorted(
                re.findall(r"\$\d", there[name]["message"])
            ), name
    stems = set(re.findall(r"[`'\"]([a-z]+(?:_[a-z]+)*_)\$\{", text))
    named = set(re.findall(r"[a-z]+(?:_[a-z]+)*", text))
    unused = [
        name
        for name in there
        if name not in named
        and not any(name.startswith(stem) for stem in stems)
        and name.removesuffix("_one").removesuffix("_many") not in named
        and not name.startswith("ago_")
    ]
    assert unused == []


def test_every_stage_of_the_pipeline_has_words():
    view = (EXTENSION / "shared" / "view.js").read_text(encoding="utf-8")
    steps = re.search(r"STEPS = \{(.*)\}", view)[1]
    assert tuple(re.findall(r"(\w+):", steps)) == STAGES
    assert {f"step_{name}" for name in re.findall(r"'(\w+)'", steps)} <= set(messages("en"))


def test_headlines_are_those_of_the_report():
    english = messages("en")
    assert {label: english[f"state_{label}"]["message"] for label in Label} == wording.HEADLINES


def test_numbers_and_times_read_as_in_the_report(tmp_path):
    scores = [0.0, 0.004, 0.01, 0.126, 0.5, 0.99, 0.991, 1.0]
    seconds = [0, 9.96, 59, 75.4, 3600, 3725]
    script = tmp_path / "say.mjs"
    words = (EXTENSION / "shared" / "words.js").as_uri()
    script.write_text(
        f"import {{ clock, number }} from {words!r};"
        f"console.log(JSON.stringify([{scores}.map(number), {seconds}.map(clock)]))",
        encoding="utf-8",
    )
    told = json.loads(node(str(script)).stdout)
    assert told == [[wording.number(score) for score in scores], [wording.clock(second) for second in seconds]]


def test_colours_are_those_of_the_report(tmp_path):
    text = (EXTENSION / "content" / "ramp.js").read_text(encoding="utf-8")
    stops = re.search(r"STOPS = \[(.*?)\]", text, re.DOTALL)
    assert [f"#{stop}" for stop in re.findall(r"[0-9a-f]{6}", stops[1])] == palette.stops(17)
    assert float(re.search(r"STRONG = ([\d.]+);", text)[1]) == STRONG
    script = tmp_path / "ramp.cjs"
    script.write_text(text + "\nconsole.log(JSON.stringify([...Array(256).keys()].map((i) => ramp.colour(i / 255))))")
    drawn = np.array(json.loads(node(str(script)).stdout))
    assert np.abs(drawn - palette.ramp()).max() <= 3
    report = (Path(wording.__file__).parent / "report" / "tones.css.j2").read_text(encoding="utf-8")
    ours = (EXTENSION / "shared" / "palette.css").read_text(encoding="utf-8")
    for name in ("ink", "soft", "line", "well", "hot", "hot-well", "focus", "quiet", "hatch"):
        assert re.findall(rf"--{name}: (#\w+)", ours)[:2] == re.findall(rf"--{name}: (#\w+)", report)[:2], name
