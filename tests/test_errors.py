"""The tree that opens errors.py is the documentation; these tests hold the classes to it."""

import re

import pytest
from readme import error_meanings

from scanner import errors
from scanner.errors import ScanError

DRAWN = re.compile(r"^ {4}(?P<bars>[│ ]*)[├└]── (?P<name>\w+)", re.MULTILINE)


def drawn_parents() -> dict[str, str]:
    """Child to parent as drawn: four columns of indent are one level."""
    parents, above = {}, ["ScanError"]
    for line in DRAWN.finditer(errors.__doc__ or ""):
        depth = len(line["bars"]) // 4 + 1
        above[depth:] = [line["name"]]
        parents[line["name"]] = above[depth - 1]
    return parents


def defined() -> dict[str, type[ScanError]]:
    return {
        name: thing for name, thing in vars(errors).items() if isinstance(thing, type) and issubclass(thing, ScanError)
    }


def test_the_drawn_tree_is_the_class_tree() -> None:
    classes = {
        name: error.__base__.__name__ for name, error in defined().items() if error is not ScanError and error.__base__
    }
    assert drawn_parents() == classes


def test_every_leaf_is_drawn_with_its_own_code() -> None:
    leaves = {error.code for error in defined().values() if not error.__subclasses__()}
    assert set(error_meanings()) == leaves


def test_codes_are_unique_and_look_alike() -> None:
    codes = [error.code for error in defined().values()]
    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


def test_by_code_finds_every_class() -> None:
    assert errors.by_code() == {error.code: error for error in defined().values()}


@pytest.mark.parametrize("error", defined().values(), ids=lambda error: error.code)
def test_every_error_crosses_a_process_as_code_and_message(error: type[ScanError]) -> None:
    raised = error("what happened; what to do")
    again = errors.by_code()[raised.code](str(raised))
    assert (type(again), str(again)) == (error, "what happened; what to do")


def test_rate_limited_says_when_to_come_back() -> None:
    assert errors.RateLimited("slow down", retry_after_s=3.5).retry_after_s == 3.5
    assert errors.RateLimited("slow down").retry_after_s is None


@pytest.mark.parametrize("code", ["timed_out", "unreachable", "rate_limited", "source_failed", "internal"])
def test_what_may_pass_may_be_asked_again(code: str) -> None:
    assert errors.by_code()[code].retryable


@pytest.mark.parametrize("code", ["gone", "blocked_address", "too_large", "broken_media", "bad_weights", "no_jail"])
def test_what_stays_wrong_is_not_asked_again(code: str) -> None:
    assert not errors.by_code()[code].retryable
