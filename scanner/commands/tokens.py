"""`laescan token`: make, list and revoke tokens for the API; what it does is in `api.token_command`."""

import argparse
import os

from scanner.commands.exits import Exit, fail
from scanner.settings import Settings


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command, its three actions and their arguments."""
    token = commands.add_parser("token", help="make, list and revoke tokens for the API")
    token.set_defaults(run=run)
    actions = token.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="print a new token; it is never shown again")
    create.add_argument("--scope", required=True, choices=("lookup", "submit", "bulk", "admin"), help="what it may do")
    create.add_argument("--tenant", default="local", metavar="NAME", help="whose scans it sees (default: local)")
    create.add_argument("--expires", metavar="TIME", help="e.g. 12h, 90d, 4w (default: never)")
    create.add_argument("--note", default="", metavar="TEXT", help="for the list")
    actions.add_parser("list", help="ids, scopes, tenants and whether they are valid")
    revoke = actions.add_parser("revoke", help="refuse a token from now on")
    revoke.add_argument("id", metavar="ID", help="the 12 characters after lae_")


def run(given: argparse.Namespace) -> Exit:
    """Do the action and print its lines; raises SettingsError."""
    from redis.exceptions import RedisError

    from api import token_command

    try:
        for line in token_command.run(given, Settings.from_env(os.environ)):
            print(line)
    except RedisError as error:
        return fail(f"no Redis answers ({error}); start `laescan serve`, or set LAESCAN_REDIS_URL", Exit.NO_ENGINE)
    return Exit.OK
