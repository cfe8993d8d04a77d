"""`laescan cache`: look after what is remembered; the work is in `scanner.cache.upkeep` and `archive`."""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.commands.exits import Exit, fail
from scanner.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from scanner.cache.upkeep import Inventory

UNITS_S = {"h": 3_600, "d": 86_400, "w": 604_800}
EPILOG = """\
examples:
  laescan cache stats
  laescan cache export verdicts.jsonl          # no URLs are in it
  laescan cache import verdicts.jsonl          # all or nothing: a file that is not whole is refused
  laescan cache purge --old-models             # after an upgrade, when the new model holds
  laescan cache purge --older-than 7d

exit codes:
  0  done
  2  the command or the file is wrong
  4  no Redis answers

A verdict is remembered for 30 days, an inconclusive one for 7. Purging costs scans, nothing else.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command, its four actions and their arguments."""
    cache = commands.add_parser(
        "cache",
        help="count, export, import and purge remembered verdicts",
        description="Look after the verdicts that the service remembers, beside it while it runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cache.set_defaults(run=run)
    actions = cache.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help="how much is remembered, by model")
    stats.add_argument("--json", action="store_true", help="the same as one JSON object")
    export = actions.add_parser("export", help="write verdicts into a file, as JSON lines")
    export.add_argument("file", type=Path, metavar="FILE", help="is replaced when it is complete")
    export.add_argument("--model", metavar="ID", help="only what this model judged")
    take = actions.add_parser("import", help="remember what another laescan exported")
    take.add_argument("file", type=Path, metavar="FILE")
    take.add_argument("--tenant", default="local", metavar="NAME", help="who may list them (default: local)")
    purge = actions.add_parser("purge", help="forget")
    which = purge.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="ID", help="what this model judged")
    which.add_argument("--old-models", action="store_true", help="what any but the present model judged")
    which.add_argument("--older-than", metavar="TIME", type=_seconds, help="what was judged before, e.g. 12h, 7d, 2w")
    which.add_argument("--all", action="store_true", help="everything")


def run(given: argparse.Namespace) -> Exit:
    """Do the action; raises SettingsError."""
    from redis.exceptions import RedisError

    from scanner.cache.archive import ArchiveError

    try:
        return asyncio.run(_run(given, Settings.from_env(os.environ)))
    except RedisError as error:
        return fail(f"no Redis answers ({error}); start `laescan serve`, or set LAESCAN_CACHE_URL", Exit.NO_ENGINE)
    except ArchiveError as error:
        return fail(f"{given.file} is not taken in: {error}", Exit.USAGE)
    except OSError as error:
        return fail(str(error), Exit.USAGE)


async def _run(given: argparse.Namespace, settings: Settings) -> Exit:
    from redis.asyncio import Redis

    from scanner.service.embedded import cache_url

    async with Redis.from_url(cache_url(settings)) as redis:
        match given.action:
            case "stats":
                await _stats(redis, json=given.json)
            case "export":
                await _export(redis, given.file, given.model)
            case "import":
                await _import(redis, given.file, given.tenant)
            case _:
                return await _purge(redis, given)
    return Exit.OK


async def _stats(redis: "Redis", *, json: bool) -> None:
    import msgspec

    from scanner.cache.upkeep import inventory

    found = await inventory(redis)
    if json:
        print(msgspec.json.encode(found).decode())
        return
    for line in _lines(found):
        print(line)


def _lines(found: "Inventory") -> list[str]:
    present = found.model.model_id if found.model else None
    lines = [f"judging now: {present or 'nobody yet'}"]
    for scope, count in sorted(found.verdicts.items(), key=lambda pair: -pair[1]):
        mark = "" if scope.partition(",")[0] == present else " (no longer asked for)"
        lines.append(f"{count:>10,} verdicts by {scope}{mark}")
    lines += [f"{count:>10,} {name}" for name, count in sorted(found.others.items())]
    events = {name: count for name, count in found.counters.items() if not name.startswith("remembered:")}
    lines += [f"{count:>10,} times {name}" for name, count in sorted(events.items())]
    lines.append(f"{found.memory_bytes / 1e6:>10,.1f} MB in this Redis, {found.evicted:,} keys evicted")
    return lines


async def _export(redis: "Redis", path: Path, model_id: str | None) -> None:
    from scanner.cache.archive import export

    draft, count = path.with_name(f".{path.name}.part"), -2  # the first and the last line are no verdicts
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            async for line in export(redis, _is(model_id)):
                file.write(line)
                count += 1
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    print(f"{count:,} verdicts written to {path}", file=sys.stderr)


async def _import(redis: "Redis", path: Path, tenant: str) -> None:
    from scanner.cache.archive import inspect, take_in

    inspect(path)
    taken, left = await take_in(redis, path, tenant=tenant)
    print(f"{taken:,} verdicts taken in, {left:,} known already or too old", file=sys.stderr)


async def _purge(redis: "Redis", given: argparse.Namespace) -> Exit:
    from scanner.cache import upkeep
    from scanner.cache.verdicts import VerdictCache

    if given.all:
        gone = await upkeep.purge(redis)
    elif given.older_than is not None:
        gone = await upkeep.purge_older(redis, given.older_than)
    elif given.model:
        gone = await upkeep.purge_models(redis, _is(given.model))
    else:
        model = await VerdictCache(redis).model()
        if model is None:
            return fail("no engine has come up yet, so nobody knows which model is old", Exit.USAGE)
        gone = await upkeep.purge_models(redis, lambda model_id: model_id != model.model_id)
    print(f"{gone:,} verdicts forgotten", file=sys.stderr)
    return Exit.OK


def _is(model_id: str | None) -> Callable[[str], bool]:
    return lambda other: model_id in {None, other}


def _seconds(text: str) -> float:
    """`12h`, `7d` or `2w`."""
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise ValueError
    return float(found[1]) * UNITS_S[found[2]]
