"""`python -m api`: the API alone, for a machine of its own; `laescan serve` runs it beside engine and workers."""

import asyncio
import logging
import os
import sys

from aiohttp import web

from api.access import refuse_to_expose
from api.app import connect, make_app
from scanner.logs import start_logging
from scanner.settings import Settings, SettingsError

log = logging.getLogger(__name__)
DRAIN_S = 5.0
"""Long polls and event streams are cut after this when the process is asked to end; clients come again."""


def main() -> int:
    """Serve until SIGINT or SIGTERM; out: the exit code."""
    start_logging("info", "%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = _settings()
        app = make_app(settings, connect(settings.redis_url))
    except SettingsError as error:
        log.error("%s", error)  # noqa: TRY400 - a wrong setting is no bug: no trace
        return 2
    web.run_app(
        app,
        host=settings.api_host,
        port=settings.api_port,
        access_log=None,  # ours has neither query strings nor ids
        print=lambda *_words: log.info("listening on http://%s:%d/", settings.api_host, settings.api_port),
        shutdown_timeout=DRAIN_S,
        handler_cancellation=False,
        loop=asyncio.new_event_loop(),
    )
    return 0


def _settings() -> Settings:
    settings = Settings.from_env(os.environ)
    refuse_to_expose(settings)
    if not settings.redis_url:
        msg = "set LAESCAN_REDIS_URL, e.g. redis://127.0.0.1:6379/0; `laescan serve` brings a Redis of its own"
        raise SettingsError(msg)
    return settings


if __name__ == "__main__":
    sys.exit(main())
