"""A real Redis on a Unix socket, for tests: `redis_in(folder)`, and one that can be killed and started again."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from scanner.service.embedded import redis_command, socket_url


def start_redis(folder: Path) -> subprocess.Popen[bytes]:
    """Run the embedded Redis until it answers; the caller ends it."""
    server = subprocess.Popen(redis_command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    with redis.Redis.from_url(socket_url(folder)) as client:
        while True:
            try:
                client.ping()
            except redis.exceptions.RedisError:  # not listening yet, or still loading what it wrote down
                assert server.poll() is None, "redis-server ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.02)
            else:
                return server


@contextlib.contextmanager
def redis_in(folder: Path) -> Iterator[str]:
    """The URL of a Redis that lives as long as the block."""
    server = start_redis(folder)
    try:
        yield socket_url(folder)
    finally:
        server.kill()
        server.wait()
