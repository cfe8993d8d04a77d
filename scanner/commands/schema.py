"""`laescan schema`: print what an outcome looks like, as JSON Schema or as TypeScript."""

import argparse

from scanner.commands.exits import Exit, fail


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its arguments."""
    schema = commands.add_parser(
        "schema",
        help="print the JSON Schema of an outcome, or its TypeScript types",
        description="Print the JSON Schema of an outcome: what `laescan scan --json` writes and the API answers.",
        epilog="Within a version properties are only added. Exit codes: 0 printed, 2 there is no such version.",
    )
    schema.add_argument("--version", type=int, metavar="N", dest="wanted", help="an older one (default: the latest)")
    schema.add_argument("--typescript", action="store_true", help="type declarations made from it")
    schema.set_defaults(run=run)


def run(given: argparse.Namespace) -> Exit:
    """Print it."""
    from scanner.contract import VERDICT_VERSION
    from scanner.schema.published import published, published_text
    from scanner.schema.typescript import declare

    version = VERDICT_VERSION if given.wanted is None else given.wanted
    found = published(version)
    if found is None:
        return fail(f"no schema {version} was published; the latest is {VERDICT_VERSION}", Exit.USAGE)
    print((declare(found["$defs"]) if given.typescript else published_text(version).decode()).rstrip())
    return Exit.OK
