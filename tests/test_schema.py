"""The published schema: current, true of what we say, and never broken within its version."""

import copy
import json

import generated
import jsonschema_rs
import msgspec
import pytest
from node import EXTENSION, install, node
from test_contract import OUTCOMES
from verdicts import HIGH, LOW, film, scored, still, talking_head

from scanner.cli import Exit, main
from scanner.contract import Outcome, Verdict
from scanner.schema import published
from scanner.schema.typescript import declare

PUBLISHED = published.published()


def changed(*path, to=None, required=True):
    """The published schema with one definition edited: `path` leads to what is replaced, or dropped."""
    schema = copy.deepcopy(PUBLISHED)
    inner = schema["$defs"]
    for step in path[:-1]:
        inner = inner[step]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
        if required and path[1:2] == ("properties",):
            schema["$defs"][path[0]]["required"].append(path[-1])
    return schema


def test_what_is_published_is_current():
    before = published.published()
    assert published.broken(before, published.generated(before)) == [], "raise VERDICT_VERSION, then `make docs`"
    assert generated.SCHEMA.read_text(encoding="utf-8") == generated.schema(), "run `make docs`"
    assert generated.TYPES.read_text(encoding="utf-8") == generated.types(), "run `make docs`"


@pytest.mark.parametrize(
    ("path", "to", "what"),
    [
        (("Verdict", "properties", "score"), None, "Verdict.score is gone"),
        (("Verdict", "properties", "score"), {"type": "number"}, "Verdict.score is another type"),
        (("Media", "properties", "sha256"), {"type": "integer"}, "Media.sha256 is another type"),
        (("Label", "enum"), ["authentic", "manipulated", "inconclusive", "no_face", "perhaps"], "Label is another"),
        (("Span",), None, "Span is gone"),
        (("Failure", "required"), ["code"], "Failure.message may be missing"),
    ],
    ids=lambda part: part if isinstance(part, str) else None,
)
def test_what_a_reader_would_trip_over_needs_another_version(path, to, what):
    found = published.broken(PUBLISHED, changed(*path, to=to))
    assert [words for words in found if what in words]


def test_words_and_additions_do_not():
    assert published.broken(PUBLISHED, changed("Media", "properties", "perceptual_hash", to={"type": "string"})) == []
    assert published.broken(PUBLISHED, changed("Media", "description", to="other words")) == []
    assert published.broken(PUBLISHED, changed("Added", to={"type": "object", "properties": {}})) == []


def test_what_is_added_later_is_not_required_so_that_older_verdicts_still_fit():
    first = changed("Media", "properties", "frame_count")
    first["$defs"]["Media"]["required"].remove("frame_count")
    again = published.generated(first)["$defs"]["Media"]
    assert "frame_count" in again["properties"]
    assert "frame_count" not in again["required"]
    assert "frame_count?: number | null" in declare({"Media": again})


def test_a_breaking_change_is_not_written(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(generated, "published", lambda: changed("Media", "properties", "lost", to={"type": "string"}))
    monkeypatch.setattr(generated, "SCHEMA", tmp_path / "outcome-1.json")
    assert generated.main() == 1
    assert "raise VERDICT_VERSION: Media.lost is gone" in capsys.readouterr().out
    assert not generated.SCHEMA.exists()


@pytest.mark.parametrize(
    "outcome",
    [
        *OUTCOMES,
        Outcome(source="still", verdict=still(scored(HIGH, peak_at=(3, 4)), scored(LOW, track=1))),
        Outcome(source="clip", verdict=film(talking_head([HIGH] * 16))),
        Outcome(source="nobody", verdict=still()),
    ],
    ids=lambda outcome: outcome.source,
)
def test_what_we_say_fits_what_we_publish(outcome):
    said = json.loads(msgspec.json.encode(outcome))
    jsonschema_rs.validator_for(PUBLISHED).validate(said)


def test_what_is_no_outcome_does_not_fit():
    validator = jsonschema_rs.validator_for(PUBLISHED)
    said = json.loads(msgspec.json.encode(OUTCOMES[0]))
    for wrong in ({"verdict": {}}, {"source": 1}, {"verdict": said["verdict"] | {"version": 2}}):
        assert not validator.is_valid(said | wrong)
    assert validator.is_valid(said | {"added_later": 1})


def test_the_command_prints_it_and_its_types(capsys):
    assert main(["schema"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == PUBLISHED
    assert main(["schema", "--typescript"]) == Exit.OK
    assert "export interface Verdict {" in capsys.readouterr().out
    assert main(["schema", "--version", "99"]) == Exit.USAGE
    assert "no schema 99" in capsys.readouterr().err


def test_every_property_of_a_verdict_is_declared_for_the_extension():
    text = generated.TYPES.read_text(encoding="utf-8")
    body = text.split("export interface Verdict {")[1].split("\n}")[0]
    assert [line.split(": ")[0].split()[-1] for line in body.splitlines() if line] == list(Verdict.__struct_fields__)


def test_the_compiler_takes_the_types_and_refuses_what_they_do_not_know(tmp_path):
    install()
    use = "import type { Outcome } from './server';\nexport const of = (o: Outcome) => o.verdict?.%s ?? null;\n"
    for name, code in (("score", 0), ("skore", 1)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "server.d.ts").write_text(generated.TYPES.read_text(encoding="utf-8"))
        (folder / "use.ts").write_text(use % name)
        answer = node(
            str(EXTENSION / "node_modules/typescript/bin/tsc"), "--noEmit", "--strict", "--ignoreConfig",
            "--module", "esnext", "--moduleResolution", "bundler", str(folder / "use.ts"),
        )  # fmt: skip
        assert (answer.returncode, "skore" in answer.stdout) == (code, bool(code)), answer.stdout


def test_a_shape_that_has_no_types_yet_is_refused():
    with pytest.raises(ValueError, match="no TypeScript is known"):
        declare({"Odd": {"type": "object"}})
