"""The code in, the generated parts of README.md out: what a reader is told about knobs and commands cannot go stale.

`make docs` writes them; test_house.py fails while they differ.
A part stands between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from scanner import errors, settings
from scanner.detection.checkpoint import SHIPPED, load_checkpoint
from scanner.doctor import setting_meanings
from scanner.training.metrics import interval

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
ROBUST = ("flips", "shortcuts", "deletion")
WIDTH = 100  # of --help, in characters
COMMANDS = (
    *("scan", "bulk", "serve", "worker", "engine", "engines build", "token create", "doctor", "cache", "backup"),
    *("restore", "verify", "annotate"),
)


def as_variable(value: object) -> str:
    """A setting's value as one would write it in the environment."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    """One row per environment variable."""
    defaults = settings.Settings()
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, doc in setting_meanings().items():
        shown = as_variable(getattr(defaults, name))
        rows.append(f"| `{settings.PREFIX}{name.upper()}` | {f'`{shown}`' if shown else ''} | {doc} |")
    return "\n".join(rows)


def error_meanings() -> dict[str, str]:
    """Words beside each code in the tree that opens scanner/errors.py."""
    leaf = re.compile(r"[├└]── (?P<name>\w+) +(?P<code>[a-z_]+)(?: {2,}(?P<words>.+))?$", re.MULTILINE)
    return {found["code"]: found["words"] or "" for found in leaf.finditer(errors.__doc__ or "")}


def errors_table() -> str:
    """One row per code."""
    by_code = errors.by_code()
    rows = ["| code | meaning | may succeed later |", "|---|---|---|"]
    for code, words in error_meanings().items():
        rows.append(f"| `{code}` | {words or code.replace('_', ' ')} | {'yes' if by_code[code].retryable else ''} |")
    return "\n".join(rows)


def command_help(*arguments: str) -> str:
    """What `laescan ARGUMENTS --help` prints, fenced."""
    command = [str(Path(sys.executable).parent / "laescan"), *arguments, "--help"]
    environment = {**os.environ, "COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT)
    return f"```text\n{shown.stdout.strip()}\n```"


def results_table() -> str:
    """What the shipped checkpoint was measured to do, from its own card: validation / test identities."""
    card = load_checkpoint(SHIPPED).card
    val, test = card["val"], card["test"]
    rows = [
        "| forgery kind | trained on | AUC | EER | called manipulated | attention inside the mask |",
        "|---|---|---|---|---|---|",
    ]
    for family, v in val["families"].items():
        both = (v, test["families"][family])
        cells = [
            " / ".join(f"{row[key]:.2f}" for row in both)
            for key in ("auc", "eer", "called_manipulated", "energy_inside")
        ]
        rows.append(f"| {family.replace('_', ' ')} | {'yes' if v['seen'] else '**never**'} | {' | '.join(cells)} |")
    rows += ["", "| real photographs after | called manipulated, validation | test (95 % interval) |", "|---|---|---|"]
    people = test["false_alarms"]["untouched"][
        "n"
    ]  # the same photographs every time: no more certainty than these give
    for name, v in val["false_alarms"].items():
        t = test["false_alarms"][name]
        low, high = interval(t["share"], people)
        rows.append(
            f"| {name} | {v['share']:.1%} of {v['n']} | {t['share']:.1%} of {t['n']} ({low:.0%} to {high:.0%}) |"
        )
    return "\n".join(rows)


def robust_table() -> str:
    """What the verdicts of the shipped checkpoint stand on, from its own card."""
    card = load_checkpoint(SHIPPED).card
    flips, shortcuts, deletions = ([card[split][part] for split in ("val", "test")] for part in ROBUST)
    answers = {
        "confident labels that turn into the other one when saved or resized again": [
            f"{f['turned']:.1%} of {f['confident']} × {len(f['treatments'])}" for f in flips
        ],
        "... that become `inconclusive`": [f"{f['doubted']:.1%}" for f in flips],
        **{
            f"real photographs called manipulated once {name}": [
                f"{s[name]['share']:.0%} of {s[name]['n']}" for s in shortcuts
            ]
            for name in shortcuts[0]
        },
        "forgeries found that are no longer, once their pixels are put back": [
            f"{d['turned']:.0%} of {d['n']}" for d in deletions
        ],
        "fall of the raw score when a quarter of them is put back: under the strongest map, or elsewhere": [
            f"{d['fell_hot']:.2f}, {d['fell_elsewhere']:.2f}" for d in deletions
        ],
    }
    return "\n".join(
        [
            "| question | validation | test |",
            "|---|---|---|",
            *(f"| {q} | {' | '.join(a)} |" for q, a in answers.items()),
        ]
    )


PARTS = {
    "robust": robust_table,
    "results": results_table,
    "settings": settings_table,
    "errors": errors_table,
    "help": command_help,
    **{f"help {name}": partial(command_help, *name.split()) for name in COMMANDS},
}


def up_to_date(text: str) -> str:
    """The README's text with every generated part written anew; raises ValueError when a part has no place."""
    for name, write in PARTS.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not place.search(text):
            msg = f"README.md has no place for '{name}'"
            raise ValueError(msg)
        body = write()
        text = place.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    before = README.read_text(encoding="utf-8")
    after = up_to_date(before)
    README.write_text(after, encoding="utf-8")
    print("README.md was current" if before == after else "README.md rewritten")
