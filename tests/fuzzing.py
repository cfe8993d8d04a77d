"""Fuzz our ways in: `python tests/fuzzing.py [TARGET ...] [--seconds N] [--seed N] [--corpus DIR]`.

In: names of `fuzz_targets.TARGETS` (none: all of them). Out: one line each, `fuzz TARGET, cases, failures`; exit code 1
when something was found, whose bytes are then in a file that is named. With atheris (`pip install laescan[fuzz]`;
wheels for x86-64 Linux only) coverage steers the mutations; without it they are drawn at random from the seed.
One reason: a target may crash in C or hang, so each runs in a child that is watched.
"""

import argparse
import contextlib
import faulthandler
import importlib.util
import logging
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FOUND = Path(__file__).parent / "media" / "found"
"""What ever broke a promise, by target: tried in every test run."""
WATCHED = ["scanner", "api", "yarl", "email", "csv", "PIL"]
LONGEST = 65_536
HANG_S = 25  # for one input; the slowest decode may take 10
RSS_MB = 3_000
TOKENS = (
    *(
        b"\0",
        b"\xff" * 4,
        b"\0" * 4,
        b"\x7f\xff\xff\xff",
        b"\x80\0\0\0",
        b"\r\n",
        b"\n",
        b"\xed\xa0\x80",
        b"\xe2\x80\xae",
    ),
    *(b"-1", b"9" * 30, b"1e999", b"NaN", b"null", b"[" * 2000, b"\x91" * 2000, b"%00", b"@", b"://", b"xn--"),
)


def mutations(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """Endless variations of the seeds: bits, bytes, pieces cut, doubled, joined; the same for the same number."""
    dice = random.Random(seed)
    while True:
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice((1, 1, 2, 4, 16))):
            at, end = sorted(dice.randrange(len(data) + 1) for _ in range(2))
            match dice.randrange(8):
                case 0 | 1 if data:
                    data[at % len(data)] ^= 1 << dice.randrange(8)
                case 2 if data:
                    data[at % len(data)] = dice.choice((0, 1, 127, 128, 255, dice.randrange(256)))
                case 3:
                    data[at:at] = dice.choice(TOKENS)
                case 4:
                    token = dice.choice(TOKENS)
                    data[at : at + len(token)] = token
                case 5:
                    del data[at : at + dice.choice((1, 4, end - at))]
                case 6:
                    data[at:at] = data[at : min(end, at + 64)]
                case _:
                    other = dice.choice(seeds)
                    data[at:] = other[dice.randrange(len(other) + 1) :]
        yield bytes(data[:LONGEST])


def found_before(target: str) -> list[Path]:
    """The files of the corpus that found something in this target."""
    return sorted((FOUND / target).glob("*")) if (FOUND / target).is_dir() else []


# ---------------------------------------------------------------- in the child


def _guided(target: str, seconds: float, seed: int, folder: Path) -> None:
    import atheris  # noqa: PLC0415 - an extra

    with atheris.instrument_imports(include=WATCHED):
        import fuzz_targets  # noqa: PLC0415 - instrumented
    check = fuzz_targets.TARGETS[target].check
    options = [f"-max_total_time={int(seconds)}", f"-seed={seed}", f"-max_len={LONGEST}", f"-timeout={HANG_S}",
               f"-rss_limit_mb={RSS_MB}", f"-artifact_prefix={folder}/", "-print_final_stats=1"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder / "corpus")], check)
    atheris.Fuzz()


def _random(target: str, seconds: float, seed: int, folder: Path) -> None:
    import fuzz_targets  # noqa: PLC0415 - as in the other

    one, tried, end = fuzz_targets.TARGETS[target], 0, time.monotonic() + seconds
    place = folder / "crash-random"
    try:
        for data in mutations(one.seeds(), seed):
            if time.monotonic() > end:
                break
            place.write_bytes(data)  # before it is tried: what kills the process cannot be asked
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            one.check(data)
            tried += 1
    finally:  # also when a check failed: else the timer ends whoever called us, 25 s later and without a word
        faulthandler.cancel_dump_traceback_later()
    place.unlink(missing_ok=True)
    sys.stderr.write(f"stat::number_of_executed_units: {tried}\n")


# ---------------------------------------------------------------- the command


def fuzz(target: str, seconds: float, seed: int, folder: Path) -> tuple[int, list[Path]]:
    """Run one target in a child; out: how many inputs were tried, and files with those that broke something."""
    command = [sys.executable, __file__, "--child", target, "--seconds", str(seconds), "--seed", str(seed)]
    log = folder / "log"
    with log.open("wb") as said:
        child = subprocess.Popen([*command, "--corpus", str(folder)], stdout=said, stderr=said)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds + 120)
        if child.poll() is None:
            child.kill()
            child.wait()
            (folder / "timeout-child").write_bytes(b"")
    words = log.read_text("utf-8", "replace")
    tried = re.findall(r"stat::number_of_executed_units:\s*(\d+)", words) or re.findall(
        r"^#(\d+)\s", words, re.MULTILINE
    )
    bad = [path for path in folder.iterdir() if path.name.startswith(("crash-", "timeout-", "oom-", "leak-"))]
    if child.returncode and not bad:
        bad = [log]
    return int(tried[-1]) if tried else 0, bad


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default 60)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, help="folder to keep what was learned in (default: none is kept)")
    given = parser.parse_args(arguments)
    is_guided = importlib.util.find_spec("atheris") is not None
    if given.child:
        logging.disable()  # thousands of times "is damaged"
        run = _guided if is_guided else _random
        run(given.child, given.seconds, given.seed, given.corpus)
        return 0
    import fuzz_targets  # noqa: PLC0415 - not in the child, where it is imported instrumented

    print(f"# {'coverage-guided (atheris)' if is_guided else 'random mutations: atheris is not installed'}")
    failures = 0
    for target in given.targets or fuzz_targets.TARGETS:
        with contextlib.ExitStack() as stack:
            home = given.corpus / target if given.corpus else Path(stack.enter_context(tempfile.TemporaryDirectory()))
            corpus = home / "corpus"
            corpus.mkdir(parents=True, exist_ok=True)
            for number, data in enumerate(fuzz_targets.TARGETS[target].seeds()):
                (corpus / f"seed-{number}").write_bytes(data)
            tried, bad = fuzz(target, given.seconds, given.seed, home)
            failures += len(bad)
            print(f"fuzz {target}, {tried}, {len(bad)}", flush=True)
            for path in bad:
                kept = Path(tempfile.gettempdir()) / f"laescan-fuzz-{target}-{path.name}"
                kept.write_bytes(path.read_bytes())
                print(f"#   {kept}\n" + "".join(f"#   {line}\n" for line in _last_words(home / "log")), flush=True)
    return 1 if failures else 0


def _last_words(log: Path) -> list[str]:
    lines = [line for line in log.read_text("utf-8", "replace").splitlines() if not line.startswith(("#", "INFO"))]
    return lines[-25:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
