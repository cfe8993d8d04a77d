"""The short form of `tests/canaries.py`: every eighth spelling through the doors that cost no process."""

import urllib.request

import canaries
import pytest


@pytest.mark.parametrize("door", ["fetch", "proxy", "rebinding", "list", "feed"])
def test_nobody_reaches_the_inside_and_the_door_is_no_wall(door):
    ((name, cases, contacts, is_open),) = canaries.count([door], 8)
    assert (name, contacts, is_open) == (door, 0, True)
    assert cases >= 10


def test_all_doors_together_are_a_thousand_cases():
    field = canaries.Field(1)
    spellings, ways = len(field.spellings()), len(list(field.ways("localhost")))
    field.close()
    by_door = (spellings * ways, 2 * spellings, canaries.REBINDINGS, spellings * ways // 2, 2 * 3 * spellings)
    assert sum(by_door) > 1_000  # and pages, and the API


def test_a_contact_is_counted(monkeypatch, capsys):
    def leaky(field):
        urllib.request.urlopen(f"http://127.0.0.1:{field.canary.port}/", timeout=10).close()
        return 1, True

    monkeypatch.setattr(canaries, "DOORS", {"leaky": leaky})
    assert canaries.main([]) == 1
    assert capsys.readouterr().out.splitlines() == ["canaries leaky, 1, 1", "canaries, 1, 1"]
