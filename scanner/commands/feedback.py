"""`laescan feedback`: the reports that verdicts are wrong; what it does is in `api.feedback_command`."""

import argparse
import os

from scanner.commands.exits import Exit, fail
from scanner.settings import Settings


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its argument."""
    feedback = commands.add_parser("feedback", help="list the reports that verdicts are wrong, as JSON lines")
    feedback.add_argument("--tenant", metavar="NAME", help="of one tenant only (default: all)")
    feedback.set_defaults(run=run)


def run(given: argparse.Namespace) -> Exit:
    """Print one report to a line; raises SettingsError."""
    from redis.exceptions import RedisError

    from api import feedback_command

    try:
        for line in feedback_command.run(Settings.from_env(os.environ), tenant=given.tenant):
            print(line)
    except RedisError as error:
        return fail(f"no Redis answers ({error}); start `laescan serve`, or set LAESCAN_REDIS_URL", Exit.NO_ENGINE)
    return Exit.OK
