"""SECURITY.md names every threat and every fault of the list once, and only tests that are there."""

import re
from pathlib import Path

HERE = Path(__file__).parent
TEXT = (HERE.parent / "SECURITY.md").read_text(encoding="utf-8")


def rows():
    table = TEXT.partition("<!-- rows -->")[2].partition("<!-- /rows -->")[0]
    return [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]


def test_every_threat_and_every_fault_has_its_row():
    expected = [f"T{n}" for n in range(1, 30)] + [f"F{n}" for n in range(1, 26)]
    assert [row[0].strip() for row in rows()] == expected


def test_the_tests_that_it_names_are_there():
    named = set(re.findall(r"\w+\.py", " ".join(row[2] for row in rows())))
    assert len(named) > 20
    assert {name for name in named if not (HERE / name).is_file()} == set()


def test_the_last_torture_has_its_place():
    assert TEXT.count("<!-- torture -->") == TEXT.count("<!-- /torture -->") == 1
