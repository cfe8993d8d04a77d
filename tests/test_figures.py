"""The README's table of speed: read from what benchmarks print, compared with what is committed."""

import json

import figures
import pytest

PRINTED = """\
Some CPU, 2 cores, load 0.1
image scan / limit         0.82  (0.64 to 1.19; 59.00 and 76.00 core-ms; target 0.9: MISSED)
a list of 50 % duplicates                      0.571  (0.550 to 0.600; target 0.6: reached)
rows per second            12,345  (11,000 to 13,000; target 10,000: reached)
accuracy guard: scores moved by at most 1.2e-07 from eager fp32 (limit 1e-2)
"""


def test_every_ratio_that_a_benchmark_prints_is_a_figure():
    found = figures.figures_in("scan", PRINTED)
    assert [(f.what, f.median, f.low, f.high, f.aim, f.reached) for f in found] == [
        ("image scan / limit", 0.82, 0.64, 1.19, 0.9, False),
        ("a list of 50 % duplicates", 0.571, 0.55, 0.6, 0.6, True),
        ("rows per second", 12345, 11000, 13000, 10000, True),
    ]


def test_what_is_missed_says_so_in_the_table():
    lines = figures.table("a machine", figures.figures_in("scan", PRINTED)).splitlines()
    assert lines[0] == "a machine."
    assert (
        lines[4] == "| image scan / limit | 0.82 (0.64 to 1.19) | ≥ 0.9, **missed** | `python tests/bench_scan.py 5` |"
    )


def test_only_what_left_the_committed_spread_is_pointed_out():
    old = figures.figures_in("scan", PRINTED)
    new = figures.figures_in("scan", PRINTED.replace("   0.82 ", "   0.60 ").replace("   0.571", "   0.599"))
    assert figures.moved(new, old) == ["image scan / limit: 0.6, was 0.82 (0.64 to 1.19)"]


def test_a_glance_sets_two_figures_beside_the_committed_ones():
    new = figures.figures_in("scan", PRINTED.replace("   0.82 ", "   0.60 "))
    assert figures.beside(new[:1], figures.figures_in("scan", PRINTED)) == (
        "speed, which fails no test: image scan / limit 0.6, committed 0.82 (0.64 to 1.19)"
    )
    assert figures.beside([], new) == "speed, which fails no test: nothing was measured"
    assert (figures.HERE / figures.GLANCE[0]).is_file()


@pytest.mark.parametrize("bench", figures.COMMANDS)
def test_every_command_is_a_benchmark_here(bench):
    assert (figures.HERE / figures.COMMANDS[bench][0]).is_file()


def test_the_readme_shows_the_committed_figures():
    kept = json.loads(figures.KEPT.read_text())
    text = figures.README.read_text(encoding="utf-8")
    shown = text[text.index(figures.BEGIN) + len(figures.BEGIN) : text.index(figures.END)].strip()
    assert shown == figures.table(kept["where"], figures.kept())
