"""`laescan doctor`: its arguments and its words; what is tried is in `scanner.doctor`."""

import argparse
import os
from typing import TYPE_CHECKING

import msgspec

from scanner.settings import Settings

if TYPE_CHECKING:
    from scanner.doctor import Diagnosis
    from scanner.repair import Repair

EPILOG = """\
exit codes:
  0  everything that a scan needs is here and holds
  1  something is not, or could not be mended; its line tells what to do

--fix removes what killed processes left (scratch folders, sockets, halves of uploads, backups and engines), closes to
others what is private, and cuts a broken append-only file of Redis off where it broke, after a copy. While the service
runs, its files are left alone.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its arguments."""
    doctor = commands.add_parser(
        "doctor",
        help="tell whether everything that a scan needs is here and holds",
        description="Try everything that a scan needs: weights, backend, jail, egress check. List the settings.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor.add_argument("--fix", action="store_true", help="mend what can be mended first, and say what was done")
    doctor.add_argument("--json", action="store_true", help="the same as one JSON object")
    doctor.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Try everything and say how it went; out: the exit code."""
    from scanner.doctor import examine

    repairs = _repairs() if given.fix else []
    found = msgspec.structs.replace(examine(os.environ), repairs=tuple(repairs))
    if given.json:
        print(msgspec.json.encode(found).decode())
    else:
        _show(found)
    return int(not found.ok or not all(repair.done for repair in repairs))


def _repairs() -> "list[Repair]":
    """Mend before anything is tried; raises SettingsError."""
    from scanner.repair import Repair, mend

    return mend(Settings.from_env(os.environ)) or [Repair("nothing was left to mend", done=True)]


def _show(found: "Diagnosis") -> None:
    for repair in found.repairs:
        print(f"{'done' if repair.done else 'LEFT'} {repair.what}")
    for check in found.checks:
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.words[0]}")
        for words in check.words[1:]:
            print(f"     {' ' * len(check.name)}  {words}")
    print("\nsettings:")
    for setting in found.settings:
        print(f"  {'' if setting.is_default else '* '}{setting.variable}={setting.value}\n      {setting.meaning}")
    print("\nall is well" if found.ok else "\nsomething is wrong: see the lines with FAIL")
