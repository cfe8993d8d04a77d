"""A remembered verdict in, its short form out, the evidence stepped over: for lists of a thousand.

One reason: evidence is most of a verdict, and a list that asks for a thousand of them shows none of it.
"""

from typing import TypeVar

import msgspec

from scanner.contract import Known, Label, Thresholds, Verdict

T = TypeVar("T")


class _Bytes(msgspec.Struct, frozen=True):
    """What `Known` needs of a `Media`."""

    sha256: str


class _Judge(msgspec.Struct, frozen=True):
    """What `Known` needs of a `ModelInfo`."""

    model_id: str


class _Gist(msgspec.Struct, frozen=True):
    """What `Known` needs of a `Verdict`: msgspec steps over the evidence, which is most of it, without making it."""

    label: Label
    score: float | None
    reason: str
    thresholds: Thresholds
    media: _Bytes
    model: _Judge


class _RememberedGist(msgspec.Struct, frozen=True, array_like=True):
    """A verdict as it lies in Redis, read for its gist."""

    stored_s: float
    verdict: _Gist


def gist_in(sha256: str, value: bytes, model_id: str, now: float, _key: str) -> Known:
    """The gist of the verdict on these bytes by this model; raises ValueError when it is on something else, or none."""
    found = decoded(_GIST, value)
    gist = found.verdict
    insist(gist, sha256, model_id)
    return Known(
        label=gist.label,
        score=gist.score,
        reason=gist.reason,
        thresholds=gist.thresholds,
        sha256=sha256,
        model_id=model_id,
        age_s=max(0.0, now - found.stored_s),
    )


def insist(verdict: Verdict | _Gist, sha256: str, model_id: str) -> None:
    """Raise ValueError unless it is on these bytes and by this model."""
    if verdict.media.sha256 != sha256 or verdict.model.model_id != model_id:
        msg = "it is a verdict on something else"
        raise ValueError(msg)


def decoded(decoder: "msgspec.msgpack.Decoder[T]", value: bytes) -> T:
    """What is packed in a value; raises ValueError, for nesting without end, too."""
    try:
        return decoder.decode(value)
    except RecursionError as error:
        msg = "it is nested too deep"
        raise ValueError(msg) from error


_GIST = msgspec.msgpack.Decoder(_RememberedGist)
