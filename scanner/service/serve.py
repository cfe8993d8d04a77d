"""`laescan serve` and `laescan worker`: which programs make up the service, and how they find each other.

In: settings and the command line. Out: Redis, engine, workers and API under one supervisor, until Ctrl-C.
One reason: one command must be the whole service on one machine, and the same programs alone a part of a larger one.

    serve = redis (unless --redis) + engine + workers + API          worker = engine (unless one answers) + workers
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from scanner.errors import NoJail
from scanner.folders import spool_folder, state_folder, sweep_scratch
from scanner.logs import start_logging
from scanner.service.embedded import redis_command, service_url, socket_url
from scanner.service.supervisor import Program, Supervisor
from scanner.settings import PREFIX, Settings, SettingsError

log = logging.getLogger(__name__)

_NO_WORKER = 4  # as `laescan engine --status` says that there is none
_POLL_S = 0.1
_OLD_REDIS_S = 30.0  # a Redis whose supervisor was killed writes down what it has and ends
_SERVE_EPILOG = """\
One process of each kind runs under one supervisor, which starts again whatever dies; what was accepted is not lost.
Ctrl+C ends it in order: the API first, then the workers after their running scans. Twice: at once.

exit codes:
  0  stopped in order
  2  the command or a setting is wrong, or the state folder is in use
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The two commands and their arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    serve = commands.add_parser(
        "serve",
        help="run the service: queue, engine, workers, API and web page",
        description="Run everything on this machine: Redis, engine, workers, API and web page.",
        epilog=_SERVE_EPILOG,
        formatter_class=raw,
    )
    serve.add_argument("--host", metavar="ADDRESS", help="to listen on (default: LAESCAN_API_HOST)")
    serve.add_argument("--port", metavar="N", help="to listen on (default: LAESCAN_API_PORT)")
    worker = commands.add_parser(
        "worker",
        help="run workers for a service on another machine, or beside one",
        description="Run workers, and an engine where none answers, for the queue in a Redis that others share.",
        epilog="Ctrl+C ends them after their running scans. Uploads reach workers that share LAESCAN_SPOOL. "
        "Exit codes: 0 ended in order, 2 the command or a setting is wrong, 4 (with --status) no worker here is ready.",
    )
    worker.add_argument(
        "--status", action="store_true", help="name this machine's workers that are ready, instead of being one"
    )
    for command in (serve, worker):
        command.add_argument("--redis", metavar="URL", help="the Redis to use (default: LAESCAN_REDIS_URL)")
        command.add_argument("--workers", metavar="N", help="worker processes (default: LAESCAN_WORKERS)")
        command.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Be the supervisor of the command that was given, or ask; raises SettingsError."""
    if getattr(given, "status", False):
        return _tell_workers(given.redis or service_url(Settings.from_env(os.environ)))
    start_logging("info", "%(asctime)s laescan    %(message)s", times="%Y-%m-%d %H:%M:%S", anew=True)
    environ = dict(os.environ)
    for name, field in (("redis", "REDIS_URL"), ("workers", "WORKERS"), ("host", "API_HOST"), ("port", "API_PORT")):
        if getattr(given, name, None) is not None:
            environ[PREFIX + field] = getattr(given, name)
    settings = Settings.from_env(environ)
    _refuse_without_walls(settings)
    sweep_scratch()
    if given.command == "worker":
        if not settings.redis_url:
            msg = "a worker needs the Redis of its service: --redis URL, or LAESCAN_REDIS_URL"
            raise SettingsError(msg)
        middle = _middle(settings, environ, is_needless=lambda: _engine_listens(settings))
        return asyncio.run(Supervisor(middle).run(lambda: log.info("working; Ctrl+C ends")))
    with alone(state_folder(settings)):
        return asyncio.run(_serve(settings, environ))


def _refuse_without_walls(settings: Settings) -> None:
    """Raise SettingsError where a video page could lead its reader to anywhere: nobody is to find that out later."""
    from scanner.fetching.page_walls import require_walls  # noqa: PLC0415 - aiohttp, for this moment only

    try:
        require_walls(settings)
    except NoJail as error:
        raise SettingsError(str(error)) from error


async def _serve(settings: Settings, environ: Mapping[str, str]) -> int:
    """With the embedded Redis when no other is named."""
    state = state_folder(settings)
    own = {"STATE": str(state), "SPOOL": str(spool_folder(settings))}
    first: list[Program] = []
    if not settings.redis_url:
        folder = state / "redis"
        own["REDIS_URL"] = socket_url(folder)
        command = redis_command(folder)
        await _until_vacant(own["REDIS_URL"])
        first = [Program("redis", command, environ, lambda: _answers(own["REDIS_URL"]), death_signal=signal.SIGTERM)]
    environ = {**environ, **{PREFIX + name: value for name, value in own.items()}}
    settings = Settings.from_env(environ)
    api = Program("api", (sys.executable, "-m", "api"), environ, lambda: _listens(settings))

    def tell() -> None:
        log.info(
            "open http://%s:%d/ and paste a URL or drop a picture; Ctrl+C stops", _host(settings), settings.api_port
        )

    return await Supervisor([first, *_middle(settings, environ), [api]]).run(tell)


def _middle(
    settings: Settings, environ: Mapping[str, str], *, is_needless: Callable[[], bool] = bool
) -> list[list[Program]]:
    """Engine, unless that is needless, and workers: what stands between Redis and API."""
    python, drain_s = sys.executable, settings.engine_drain_s
    command = (python, "-m", "scanner.cli", "engine")
    engine = Program("engine", command, environ, drain_s=drain_s, is_needless=is_needless)
    count = settings.workers or max(2, os.cpu_count() or 1)
    workers = [
        Program(f"worker.{n}", (python, "-m", "scanner.service.worker"), environ, drain_s=settings.drain_s)
        for n in range(1, count + 1)
    ]
    return [[] if is_needless() else [engine], workers]


def _tell_workers(url: str) -> int:
    """Those of this machine that are ready, a line each; out: 0, or 4 when there is none."""
    from scanner.service.roll import living_at  # noqa: PLC0415 - redis, as above

    here = asyncio.run(living_at(url, host=socket.gethostname()))
    sys.stdout.writelines(f"{name}\n" for name in here)
    if here:
        return 0
    sys.stderr.write("laescan: no worker of this machine is ready\n")
    return _NO_WORKER


def _engine_listens(settings: Settings) -> bool:
    """Whether this machine has an engine already, be it one that still loads its model."""
    from scanner.engine.wire import new_socket, socket_path  # noqa: PLC0415 - numpy, which `laescan serve` can do without

    with new_socket() as probe, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
        try:
            probe.connect(str(socket_path(settings)))
        except BlockingIOError:  # so many wait for it
            return True
        return True
    return False


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Two services on one state would write into one Redis's files; raises SettingsError for the second."""
    with (state / "serve.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"another `laescan serve` uses {state}; stop it, or set LAESCAN_STATE to another folder"
            raise SettingsError(msg) from error
        yield


async def _answers(url: str) -> None:
    """Return once the Redis there has loaded what it wrote down and answers."""
    import redis.asyncio  # noqa: PLC0415 - 0.1 s that every other command can do without
    from redis.exceptions import RedisError  # noqa: PLC0415

    async with redis.asyncio.Redis.from_url(url) as client:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await client.ping()
                return
            await asyncio.sleep(_POLL_S)


async def _until_vacant(url: str) -> None:
    """Wait for the end of a Redis that outlived its supervisor; raises SettingsError when it stays."""
    import redis.asyncio  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    deadline_s = time.monotonic() + _OLD_REDIS_S
    async with redis.asyncio.Redis.from_url(url) as client:
        while time.monotonic() < deadline_s:
            try:
                await client.ping()
            except (RedisError, OSError):
                return
            await asyncio.sleep(_POLL_S)
    msg = f"a Redis that is not ours answers at {url}; stop it, or set LAESCAN_STATE to another folder"
    raise SettingsError(msg)


async def _listens(settings: Settings) -> None:
    """Return once the API accepts connections."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(_host(settings), settings.api_port)
            writer.close()
            return
        await asyncio.sleep(_POLL_S)


def _host(settings: Settings) -> str:
    """Where this machine reaches the API: an address for all is none to open."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)  # noqa: S104 - compared
