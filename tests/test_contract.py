"""The contract is JSON first: what leaves must come back the same, and what does not fit must not come in."""

import json
import re

import msgspec
import pytest

from scanner.contract import (
    VERDICT_VERSION,
    AttentionMap,
    CacheInfo,
    FaceEvidence,
    Failure,
    FrameEvidence,
    Label,
    Media,
    ModelInfo,
    Outcome,
    Region,
    Span,
    Thresholds,
    Verdict,
)
from scanner.errors import by_code

FACE = FaceEvidence(
    box=(10.0, 20.0, 110.5, 140.25),
    frame=0,
    track=0,
    score=0.93,
    quality=0.8,
    attention=AttentionMap(
        size=2, grid=bytes([0, 64, 128, 255]), peak=0.31, crop_to_frame=(100.0, 0.0, 10.0, 0.0, 120.0, 20.0)
    ),
    warnings=("blurred",),
)
VERDICT = Verdict(
    label=Label.MANIPULATED,
    score=0.93,
    thresholds=Thresholds(authentic=0.3, manipulated=0.7),
    reason="1 of 1 faces looks manipulated.",
    faces=(FACE,),
    frames=(FrameEvidence(index=0, time_s=1.5, width=640, height=480, score=0.93),),
    worst_span=Span(start_s=1.0, end_s=2.0, score=0.93),
    regions=(Region(box=(0.0, 0.0, 5.0, 5.0), score=0.6),),
    media=Media(kind="video", format="mp4", size_bytes=1, width=640, height=480, sha256="0" * 64, duration_s=3.0),
    model=ModelInfo(model_id="m", backend="cpu", precision="fp32"),
    cache=CacheInfo(kind="near", distance=3, age_s=60.0),
    timings_s={"decode": 0.1},
    warnings=("heavy compression",),
)
OUTCOMES = [
    Outcome(source="a.jpg", verdict=VERDICT),
    Outcome(source="b.jpg", failure=Failure(code="gone", message="404; check the address", retryable=False)),
    Outcome(source="c", failure=Failure(code="rate_limited", message="wait", retryable=True, retry_after_s=2.0)),
]


def test_an_outcome_has_either_a_verdict_or_a_failure() -> None:
    for both_or_none in ({}, {"verdict": VERDICT, "failure": OUTCOMES[1].failure}):
        with pytest.raises(ValueError, match="either"):
            Outcome(source="a.jpg", **both_or_none)
    with pytest.raises(msgspec.ValidationError, match="either"):
        msgspec.json.decode(b'{"source": "a.jpg"}', type=Outcome)


def as_plain(outcome: Outcome) -> dict:
    return json.loads(msgspec.json.encode(outcome))


@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: outcome.source)
def test_json_and_back_is_the_same(outcome: Outcome) -> None:
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome


def test_the_wire_is_plain_json_that_a_browser_reads() -> None:
    verdict = as_plain(OUTCOMES[0])["verdict"]
    assert verdict["label"] == "manipulated"
    assert verdict["version"] == VERDICT_VERSION
    assert verdict["faces"][0]["attention"]["grid"] == "AECA/w=="
    assert verdict["faces"][0]["box"] == [10.0, 20.0, 110.5, 140.25]


def test_no_score_is_null_and_not_left_out() -> None:
    silent = msgspec.structs.replace(VERDICT, label=Label.NO_FACE, score=None, faces=())
    verdict = as_plain(Outcome(source="x", verdict=silent))["verdict"]
    assert verdict["score"] is None
    assert "score" in verdict


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict", "label"), "fake"),
        (("verdict", "score"), "0.93"),
        (("verdict", "media", "kind"), "audio"),
        (("verdict", "media", "size_bytes"), 1.5),
        (("verdict", "faces", 0, "box"), [1.0, 2.0, 3.0]),
        (("verdict", "faces", 0, "attention", "grid"), "not base64!"),
        (("verdict", "faces", 0, "attention", "crop_to_frame"), [1.0] * 5),
        (("verdict", "cache", "kind"), "maybe"),
        (("verdict", "timings_s"), {"decode": "fast"}),
        (("source",), None),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_does_not_fit_is_refused_with_its_place(path: tuple[str | int, ...], value: object) -> None:
    plain = as_plain(OUTCOMES[0])
    *way, last = path
    inner = plain
    for step in way:
        inner = inner[step]
    inner[last] = value
    place = "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    with pytest.raises(msgspec.ValidationError, match=re.escape(place)):
        msgspec.json.decode(json.dumps(plain), type=Outcome)


@pytest.mark.parametrize(
    "field", ["label", "score", "thresholds", "reason", "faces", "frames", "media", "model", "timings_s"]
)
def test_a_verdict_without_its_evidence_is_refused(field: str) -> None:
    plain = as_plain(OUTCOMES[0])
    del plain["verdict"][field]
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(json.dumps(plain), type=Outcome)


def test_an_older_reader_survives_a_field_added_later() -> None:
    plain = as_plain(OUTCOMES[0]) | {"added_later": 1}
    assert msgspec.json.decode(json.dumps(plain), type=Outcome) == OUTCOMES[0]


def test_evidence_cannot_be_edited() -> None:
    with pytest.raises(AttributeError):
        VERDICT.score = 0.1  # type: ignore[misc]


def test_every_failure_code_fits_and_keeps_its_retryability() -> None:
    for code, error in by_code().items():
        failure = Failure(code=code, message="m", retryable=error.retryable)
        assert msgspec.json.decode(msgspec.json.encode(failure), type=Failure) == failure


def test_a_schema_can_be_published() -> None:
    schema = msgspec.json.schema(Outcome)
    assert set(schema["$defs"]) >= {"Verdict", "Failure", "FaceEvidence", "AttentionMap"}
