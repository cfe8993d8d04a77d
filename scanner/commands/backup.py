"""`laescan backup` and `laescan restore`: the service's state in one file; the work is in `scanner.service.backup`."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.commands.exits import Exit, fail
from scanner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from scanner.service.backup import Copied

BACKUP_EPILOG = """\
It holds queue, ledger, tokens, remembered verdicts, uploads that may still be scanned, and the key that signs receipts:
keep it as you keep a key. The service may run, and goes on. Settings, weights and logs are not in it.

exit codes:
  0  the file is whole
  2  nothing was written; the words tell why
"""
RESTORE_EPILOG = """\
Stop the service first. The folder (LAESCAN_STATE) must hold no state yet; nothing is overwritten. What ran or waited
when the backup was made runs again when the service starts.

exit codes:
  0  `laescan serve` goes on from there
  2  nothing was restored; the words tell why
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The two commands and their arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    backup = commands.add_parser(
        "backup",
        help="write the service's state into one file",
        description="Write the state of `laescan serve` on this machine into one file.",
        epilog=BACKUP_EPILOG,
        formatter_class=raw,
    )
    backup.add_argument("file", type=Path, metavar="FILE", help="is replaced when it is complete")
    backup.set_defaults(run=run_backup)
    restore = commands.add_parser(
        "restore",
        help="make the service's state from such a file",
        description="Make the state of `laescan serve` on this machine from a backup.",
        epilog=RESTORE_EPILOG,
        formatter_class=raw,
    )
    restore.add_argument("file", type=Path, metavar="FILE")
    restore.set_defaults(run=run_restore)


def run_backup(given: argparse.Namespace) -> Exit:
    """Write it; raises SettingsError."""
    from scanner.service.backup import back_up

    return _run(back_up, given.file, "written to")


def run_restore(given: argparse.Namespace) -> Exit:
    """Read it; raises SettingsError."""
    from scanner.service.backup import restore

    return _run(restore, given.file, "restored from")


def _run(work: "Callable[[Settings, Path], Copied]", path: Path, done: str) -> Exit:
    from redis.exceptions import RedisError

    from scanner.service.backup import BackupError

    try:
        copied = work(Settings.from_env(os.environ), path)
    except (BackupError, OSError, RedisError) as error:
        return fail(str(error), Exit.USAGE)
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(copied.made_s))
    size = f"{copied.size_bytes / 1e6:,.1f} MB"
    print(f"the state of {made}, {copied.uploads} uploads, {size}, {done} {path}", file=sys.stderr)
    return Exit.OK
