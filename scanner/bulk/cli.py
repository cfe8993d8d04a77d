"""`laescan bulk`: its arguments, its words and its exit codes.

In: the command line. Out: a run over a list, said how it went.
One reason: it is as large as all the other commands together, so it has a file of its own beside `scanner.cli`.
"""

import argparse
import asyncio
import functools
import os
import sys
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.errors import EngineError, by_code
from scanner.logs import start_logging
from scanner.settings import PREFIX, Settings, SettingsError

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from scanner.bulk.plan import Plan, Summary
    from scanner.bulk.run import Running

FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet")
EPILOG = """\
LIST is a text file (one URL or path a line, # begins a remark), CSV, TSV, JSON lines, Parquet, any of the first four
also as .gz or .zst, - for standard input, or a folder of pictures and videos. The column with the URLs is found; the
other columns pass through. OUT's suffix is its form: .jsonl .csv .tsv .sqlite grow as it goes, .parquet is written at
the end. Every row of LIST gets exactly one row in OUT, in the order in which they are done: `row` is its number.

examples:
  laescan bulk urls.txt -o verdicts.jsonl
  laescan bulk posts.csv --column media_url -o verdicts.csv --report report/
  laescan bulk crawl.parquet -o verdicts.parquet --rate 5 --contact abuse-desk@example.org
  laescan bulk urls.txt -o verdicts.jsonl --retry-failed=timed_out,unreachable
  laescan bulk https://example.org/feed.xml --follow -o seen.jsonl
  zcat urls.gz | laescan bulk - -o verdicts.sqlite --json-progress 2> progress.jsonl
  laescan bulk urls.txt -o verdicts.jsonl --api https://laescan.example.org --token-file token

going on:
  OUT.journal, beside OUT, knows what is done. A killed run loses at most the scans under way and the last second.
  The same URL, and the same bytes under another URL, are scanned once. A list that grew is gone on with.

politeness:
  Each host gets at most --per-host connections and --rate requests a second, and less when it says so (429, 503,
  Retry-After). What fails is tried again later. A host that fails again and again is left alone. Addresses in
  LAESCAN_ALLOW_NETWORKS are your own and have no rate.
  With --api the service fetches in its own way: it has no rate per host, and what says 429, or 503 with Retry-After,
  fails; its Retry-After (10 minutes at most) holds back the host's other rows. These options are refused then.

exit codes:
  0    every row was judged
  2    the command, a setting, the list or the output is wrong; the words tell what to do
  3    every row has its row, but some could not be judged: `code` and `message` tell why
  4    nothing can be judged here (no weights, no jail, no engine): `laescan doctor` tells why
  5    OUT cannot be written (disk full?): what is in it is whole, and the same command goes on
  130  interrupted or terminated; the same command goes on
"""


class Exit(IntEnum):
    """What a shell script sees."""

    OK = 0
    USAGE = 2
    SOME_FAILED = 3
    NO_ENGINE = 4
    UNWRITABLE = 5
    INTERRUPTED = 130


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command, its worker, and their arguments."""
    bulk = commands.add_parser(
        "bulk",
        help="judge a list of a million URLs or files, one row each",
        description="Scan a list of URLs or files, one row of OUT for each of its rows: resumable, polite.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bulk.add_argument("list", metavar="LIST", help="a file, a folder, or -")
    bulk.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="where the rows go")
    bulk.add_argument("--column", metavar="NAME", help="the column with the URLs (default: found)")
    bulk.add_argument("--format", choices=FORMATS, help="what LIST is, where its name does not tell")
    bulk.add_argument("--report", type=Path, metavar="DIR", help="write one page: distribution, worst, failures")
    bulk.add_argument(
        "--follow", action="store_true", help="keep going: LIST is a growing file, or the URL of a feed or sitemap"
    )
    bulk.add_argument(
        "--every", type=_rate, default=300.0, metavar="S", help="how often to ask a feed (default: 300 s)"
    )
    elsewhere = bulk.add_mutually_exclusive_group()
    elsewhere.add_argument("--queue", metavar="URL", help="let the `laescan bulk-worker`s of this Redis scan, anywhere")
    elsewhere.add_argument("--api", metavar="URL", help="let a laescan service scan; URLs only, no files")
    bulk.add_argument("--token-file", type=Path, metavar="FILE", help="has the service's token (scope bulk)")
    again = bulk.add_argument_group("going on with an OUT that is there")
    again.add_argument(
        "--retry-failed", nargs="?", const="", metavar="CODES", help="scan again what failed, or what failed with these"
    )
    again.add_argument("--rewrite", action="store_true", help="write OUT anew, scanning only what is not known")
    model = again.add_mutually_exclusive_group()
    model.add_argument("--keep", action="store_true", help="keep rows of another model beside new ones")
    model.add_argument("--rescan", action="store_true", help="forget what is known and scan everything")
    polite = bulk.add_argument_group("politeness", "not with --api, nor are --frames and --no-hash")
    polite.add_argument("--per-host", type=_positive, metavar="N", help="connections (default: 8)")
    polite.add_argument("--rate", type=_rate, metavar="R", help="requests a second to one host, 0 = any (default: 25)")
    polite.add_argument("--retries", type=_natural, metavar="N", help="of what may pass (default: 3)")
    polite.add_argument(
        "--max-wait", type=_rate, metavar="S", help="longest wait that a host may ask for (default: 600)"
    )
    polite.add_argument("--respect-noai", action="store_true", help="leave out what X-Robots-Tag: noai marks")
    polite.add_argument("--contact", metavar="WORDS", help="mail or page, told to every server (User-Agent)")
    bulk.add_argument("--frames", type=_positive, metavar="N", help="frames scored per video (default: 16)")
    bulk.add_argument("--no-hash", action="store_true", help="no perceptual hash; saves some milliseconds a picture")
    shown = bulk.add_mutually_exclusive_group()
    shown.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary")
    shown.add_argument("--json-progress", action="store_true", help="progress and summary as JSON lines on stderr")
    bulk.set_defaults(run=run_command)
    _add_worker(commands)


def _add_worker(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    worker = commands.add_parser(
        "bulk-worker",
        help="scan pieces of lists for `laescan bulk --queue` on this or other machines",
        description="Take pieces of lists from a Redis and scan them, one after the other, with the engine of this "
        "machine or one of its own. One or two per machine are enough: each holds hundreds of connections.",
        epilog="Ctrl+C ends it after the piece that it has; twice at once: another worker gets what is missing.",
    )
    worker.add_argument("--redis", metavar="URL", help="the Redis to use (default: LAESCAN_REDIS_URL)")
    worker.set_defaults(run=run_worker)


def run_worker(given: argparse.Namespace) -> int:
    """Be a worker for pieces of lists; raises SettingsError."""
    from redis.exceptions import RedisError

    from scanner.bulk.shard_worker import run

    environ = dict(os.environ)
    if given.redis is not None:
        environ[f"{PREFIX}REDIS_URL"] = given.redis
    settings = Settings.from_env(environ)
    if not settings.redis_url:
        msg = "a worker needs a Redis: --redis URL, or LAESCAN_REDIS_URL"
        raise SettingsError(msg)
    try:
        run(settings)
    except EngineError as error:
        return _fail(f"{error.code}: {error}", Exit.NO_ENGINE)
    except RedisError as error:
        return _fail(f"no Redis answers at {settings.redis_url}: {error}", Exit.NO_ENGINE)
    return Exit.OK


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e6:
        raise ValueError
    return number


def run_command(given: argparse.Namespace) -> int:
    """Be the command; out: the exit code. Raises SettingsError."""
    from scanner.bulk.columns import ListError
    from scanner.bulk.parquet import NoParquetError
    from scanner.bulk.plan import ElsewhereError, ready
    from scanner.bulk.rows import OutputError

    _refuse_unheard(given)
    settings, plan = _settings(given), _plan(given)
    start_logging("error" if given.quiet else "warning")
    form = "quiet" if given.quiet else "json" if given.json_progress else "bar"
    try:
        summary = ready(plan, settings) or _run(plan, settings, form)
    except (ListError, NoParquetError) as error:
        return _fail(str(error), Exit.USAGE)
    except OutputError as error:
        unwritable = "cannot be written" in str(error)
        going_on = "; what is in it is whole: make room and give the same command again" if unwritable else ""
        return _fail(f"{error}{going_on}", Exit.UNWRITABLE if unwritable else Exit.USAGE)
    except EngineError as error:
        return _fail(f"{error.code}: {error}", Exit.NO_ENGINE)
    except ElsewhereError as error:
        return _fail(str(error), Exit.NO_ENGINE)
    _tell(summary, form, plan)
    if not summary.finished:
        return Exit.INTERRUPTED
    return Exit.SOME_FAILED if summary.failed else Exit.OK


def _run(plan: "Plan", settings: Settings, form: str) -> "Summary":
    from scanner.bulk.run import run
    from scanner.folders import sweep_scratch

    sweep_scratch()
    grows = plan.follow_s is not None
    shows = functools.partial(_watch, source=None if grows else plan.source, form=form)
    return asyncio.run(run(plan, settings, watch=shows, say=functools.partial(_say, form)))


def _watch(running: "Running", *, source: str | None, form: str) -> "AbstractAsyncContextManager[None]":
    from scanner.bulk.progress import watch

    return watch(running, source, form=form)


def _settings(given: argparse.Namespace) -> Settings:
    """From the environment, with what the command line overrides; the engine that we start inherits it."""
    import msgspec

    if given.frames is not None:
        os.environ[f"{PREFIX}MAX_FRAMES"] = str(given.frames)
    settings = Settings.from_env(os.environ)
    agent = settings.user_agent
    if given.contact:
        if not given.contact.isprintable():
            msg = "--contact goes into an HTTP header: write it on one line"
            raise SettingsError(msg)
        agent = f"{agent} {given.contact}"
    noai = settings.respect_noai or given.respect_noai
    return msgspec.structs.replace(settings, user_agent=agent, respect_noai=noai)


def _refuse_unheard(given: argparse.Namespace) -> None:
    """A service fetches and scans in its own way: what it is not told must not be promised. Raises SettingsError."""
    ours = ("per_host", "rate", "retries", "max_wait", "respect_noai", "contact", "frames", "no_hash")
    values = vars(given)
    unheard = [f"--{name.replace('_', '-')}" for name in ours if values[name] is not None and values[name] is not False]
    if given.api is not None and unheard:
        msg = f"{', '.join(unheard)}: the service of --api fetches and scans by its own settings; leave this out"
        raise SettingsError(msg)


def _plan(given: argparse.Namespace) -> "Plan":
    from scanner.bulk.plan import Plan
    from scanner.bulk.polite import Patience, Policy

    codes = None
    if given.retry_failed is not None:
        codes = tuple(code.strip() for code in given.retry_failed.split(",") if code.strip())
        unknown = [code for code in codes if code not in by_code()]
        if unknown:
            msg = f"--retry-failed: there is no code {', '.join(unknown)}; the README lists them"
            raise SettingsError(msg)
    return Plan(
        source=given.list,
        out=given.out,
        column=given.column,
        form=given.format,
        policy=Policy(per_host=given.per_host or 8, per_host_rate=25.0 if given.rate is None else given.rate),
        patience=Patience(
            retries=3 if given.retries is None else given.retries,
            longest_wait_s=600.0 if given.max_wait is None else given.max_wait,
        ),
        with_hash=not given.no_hash,
        report=given.report,
        retry_failed=codes,
        rewrite=given.rewrite,
        rescan=given.rescan,
        keep=given.keep,
        follow_s=max(given.every, 1.0) if given.follow else None,
        queue=given.queue,
        api=given.api,
        token=_token(given),
    )


def _token(given: argparse.Namespace) -> str | None:
    """From a file: others can read what stands on a command line."""
    if given.token_file is None:
        return None
    if given.api is None:
        msg = "--token-file: a token is for --api"
        raise SettingsError(msg)
    try:
        words = given.token_file.read_text(encoding="ascii").split()
    except (OSError, UnicodeError) as error:
        msg = f"--token-file: cannot read {given.token_file}: {error}"
        raise SettingsError(msg) from error
    if len(words) != 1:
        msg = f"--token-file: {given.token_file} must have the token alone, it has {len(words)} words"
        raise SettingsError(msg)
    return str(words[0])


def _say(form: str, words: str) -> None:
    if form == "bar":
        print(f"laescan: {words}", file=sys.stderr)


def _fail(words: str, code: Exit) -> Exit:
    print(f"laescan: {words}", file=sys.stderr)
    return code


def _again(summary: "Summary") -> str:
    """Which failures another try may mend."""
    known = by_code()
    may_pass = sorted(code for code in summary.counts if code in known and known[code].retryable)
    count = sum(summary.counts[code] for code in may_pass)
    return f", {count:,} of them for a reason that may pass: --retry-failed={','.join(may_pass)}" if may_pass else ""


def _tell(summary: "Summary", form: str, plan: "Plan") -> None:
    """What there is now, and how to go on."""
    import msgspec

    from scanner.bulk.plan import counts, duration

    if form == "quiet":
        return
    if form == "json":
        print(msgspec.json.encode(summary).decode(), file=sys.stderr)
        return
    rate = f", {summary.rows_this_run / summary.seconds:.1f}/s" if summary.seconds > 0 and summary.rows_this_run else ""
    took = f"{duration(summary.seconds)}{rate}"
    new = f"{summary.rows_this_run:,} written in {took}" if summary.rows_this_run else "none new"
    print(f"{summary.out}: {summary.rows:,} rows, {new}", file=sys.stderr)
    print(f"  {counts(summary.counts)}", file=sys.stderr)
    if not summary.finished:
        print("interrupted: give the same command again, it goes on from here", file=sys.stderr)
    elif summary.failed:
        print(f"  {summary.failed:,} could not be judged{_again(summary)}", file=sys.stderr)
    if plan.report:
        print(f"  report: {plan.report / 'report.html'}", file=sys.stderr)
