"""Benchmarks in, the README's table of speed out: `python tests/figures.py [--only NAME,...] [--write]`.

Each benchmark runs alone, one after the other; what it printed is kept in reports/bench/NAME.txt. Lines of the form

    NAME   1.23  (1.20 to 1.30; ...; target 1.2: reached)

are its figures. With --write they go into the README between their marks and into tests/figures.json, with machine,
date and commit. A figure that left the spread of the committed one is pointed out, and nothing more: speed is no test.
`--glance` sets two of them beside the committed ones; `make test` ends with it, whatever it says.
"""

import argparse
import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
KEPT, README = HERE / "figures.json", ROOT / "README.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
LINE = re.compile(
    r"^(?P<what>\S.*?) {2,}(?P<median>[\d.,]+) +\((?P<low>[\d.,]+) to (?P<high>[\d.,]+);.*"
    r"target (?P<aim>[\d.,]+): (?P<verdict>reached|MISSED)\)$"
)
COMMANDS = {  # sized so that all of them end within half an hour of two cores
    "scan": ("bench_scan.py", "5"),
    "encoder": ("bench_encoder.py", "5"),
    "api": ("bench_api.py", "1"),
    "again": ("bench_bulk.py", "again", "1000", "3"),
    "twice": ("bench_bulk.py", "twice", "1000", "3"),
    "kill": ("bench_bulk.py", "kill", "1000", "1"),
    "hosts": ("bench_bulk.py", "hosts", "600", "1"),
}

GLANCE = ("bench_scan.py", "glance")


@dataclass(frozen=True)
class Figure:
    """A ratio, as a rule: both sides in the same run, interleaved; median, least and greatest of the rounds."""

    bench: str
    what: str
    median: float
    low: float
    high: float
    aim: float
    reached: bool

    @property
    def row(self) -> str:
        sign = "≥" if (self.median >= self.aim) == self.reached else "≤"
        aim = f"{sign} {shown(self.aim)}{'' if self.reached else ', **missed**'}"
        spread = f"{shown(self.median)} ({shown(self.low)} to {shown(self.high)})"
        return f"| {self.what} | {spread} | {aim} | `{command(self.bench)}` |"


def shown(value: float) -> str:
    """63254.17 as 63,254, 0.608 as it is."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:g}"


def command(bench: str) -> str:
    script, *arguments = COMMANDS[bench]
    return " ".join(("python", f"tests/{script}", *arguments))


def figures_in(bench: str, text: str) -> list[Figure]:
    """What a benchmark's printed lines say."""
    found = []
    for line in text.splitlines():
        if match := LINE.match(line):
            numbers = [float(match[name].replace(",", "")) for name in ("median", "low", "high", "aim")]
            found.append(Figure(bench, match["what"], *numbers, match["verdict"] == "reached"))
    return found


def beside(new: list[Figure], old: list[Figure]) -> str:
    """A glance at speed in words: each figure beside the committed one."""
    before = {figure.what: figure for figure in reversed(old)}
    pairs = [(now, before[now.what]) for now in new if now.what in before]
    told = [
        f"{now.what} {now.median:g}, committed {then.median:g} ({then.low:g} to {then.high:g})" for now, then in pairs
    ]
    return f"speed, which fails no test: {'; '.join(told) or 'nothing was measured'}"


def glance() -> None:
    """Measure two ratios in a quarter of a minute; whatever goes wrong is a line and no failure."""
    own = [sys.executable, str(HERE / GLANCE[0]), *GLANCE[1:]]
    environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        done = subprocess.run(own, capture_output=True, text=True, timeout=120, env=environ, cwd=ROOT, check=False)
    except subprocess.TimeoutExpired:
        print("speed, which fails no test: not measured, this machine is too busy")
        return
    print(beside(figures_in("scan", done.stdout), kept()) + (f" ({done.stderr[-300:]})" if done.returncode else ""))


def measured(bench: str) -> list[Figure]:
    """Run it, show and keep what it prints."""
    script, *arguments = COMMANDS[bench]
    began, lines = time.monotonic(), []
    print(f"== {command(bench)}", flush=True)
    environ = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
    own = [sys.executable, str(HERE / script), *arguments]
    with subprocess.Popen(own, stdout=subprocess.PIPE, text=True, env=environ, cwd=ROOT) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        print(f"{bench} failed with exit code {process.returncode}")
    print(f"== {time.monotonic() - began:.0f} s", flush=True)
    folder = ROOT / "reports" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{bench}.txt").write_text("".join(lines))
    return figures_in(bench, "".join(lines))


def machine() -> str:
    """Where it was measured."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    asked = ["git", "rev-parse", "--short", "HEAD"]
    here = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT, check=False)
    return (
        f"{os.cpu_count()} logical cores of an {cpu}, Python {platform.python_version()}, "
        f"torch {metadata.version('torch').partition('+')[0]}, {dt.datetime.now(dt.UTC):%Y-%m-%d}, "
        f"commit {here.stdout.strip() or 'unknown'}"
    )


def moved(new: list[Figure], old: list[Figure]) -> list[str]:
    """Figures whose median lies outside of what was committed."""
    before = {(figure.bench, figure.what): figure for figure in old}
    return [
        f"{now.what}: {now.median:g}, was {then.median:g} ({then.low:g} to {then.high:g})"
        for now in new
        if (then := before.get((now.bench, now.what))) and not then.low <= now.median <= then.high
    ]


def table(where: str, figures: list[Figure]) -> str:
    """The README's part."""
    head = "| what | median (least to greatest) | aim | command |\n|---|---|---|---|"
    return "\n".join([f"{where}.", "", head, *(figure.row for figure in figures)])


def kept() -> list[Figure]:
    """The committed figures."""
    return [Figure(**one) for one in json.loads(KEPT.read_text())["figures"]] if KEPT.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,...", default=",".join(COMMANDS), help=f"of {', '.join(COMMANDS)}")
    parser.add_argument("--write", action="store_true", help="into the README and tests/figures.json")
    parser.add_argument("--glance", action="store_true", help="two ratios beside the committed ones, in 15 s")
    given = parser.parse_args()
    if given.glance:
        glance()
        return
    chosen, old, where = given.only.split(","), kept(), machine()
    new = [figure for bench in chosen for figure in measured(bench)]
    print("\n".join(moved(new, old)) or "nothing left the spread of the committed figures")
    if given.write:
        figures = [figure for figure in old if figure.bench not in chosen] + new
        figures.sort(key=lambda figure: list(COMMANDS).index(figure.bench))
        kept_now = {"where": where, "figures": [asdict(figure) for figure in figures]}
        KEPT.write_text(json.dumps(kept_now, indent=1) + "\n")
        text = README.read_text(encoding="utf-8")
        start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        README.write_text(f"{text[:start]}\n{table(where, figures)}\n{text[end:]}", encoding="utf-8")


if __name__ == "__main__":
    main()
