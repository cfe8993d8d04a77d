"""`python -m scanner.fetching.gateway`: our filtering proxy as a process, the only door of an internal-only network.

In: `LAESCAN_EGRESS_PROXY` (its port and password; workers have the same), `LAESCAN_ALLOW_*`. Out: connections that the
address policy lets pass.
One reason: where the kernel gives no namespaces, or nobody wants to trust the worker, the network itself is the wall.
Workers behind it need no route and no DNS: names are resolved here, and the address that was checked is dialled.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from urllib.parse import unquote, urlsplit

from scanner.fetching.egress import AddressPolicy
from scanner.fetching.proxy import Budget, FilteringProxy
from scanner.settings import Settings, SettingsError

log = logging.getLogger(__name__)

_EVERYWHERE = "0.0.0.0"  # noqa: S104 - its clients are on other machines; the password and the network keep others out
_BACKLOG = 512


async def serve(settings: Settings, listener: socket.socket) -> None:
    """Answer at `listener` until SIGTERM or SIGINT; what is open then is cut, and asked for again."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    password = unquote(urlsplit(settings.egress_proxy).password or "")
    policy, budget = AddressPolicy.from_settings(settings), Budget.of_service(settings)
    async with FilteringProxy(policy, budget, listener=listener, password=password):
        log.info("the way out is open at port %d", listener.getsockname()[1])
        await stopping.wait()


def main() -> int:
    """Be the door; out: the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        settings = _settings()
        listener = socket.create_server((_EVERYWHERE, urlsplit(settings.egress_proxy).port or 0), backlog=_BACKLOG)
        asyncio.run(serve(settings, listener))
    except (SettingsError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - a wrong setting or a port in use is no bug: no trace
        return 2
    return 0


def _settings() -> Settings:
    settings = Settings.from_env(os.environ)
    if not settings.egress_proxy:
        msg = "set LAESCAN_EGRESS_PROXY=http://laescan:PASSWORD@HOST:PORT, here and for every worker"
        raise SettingsError(msg)
    return settings


if __name__ == "__main__":
    sys.exit(main())
