"""Who is on the roll: those who live, of one machine or of all, and nobody when Redis is away."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest
import redis
from redis_server import redis_in
from rq import SimpleWorker

from scanner.service.roll import living_at


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("r")) as url:
        yield url


def enlist(url, name):
    client = redis.Redis.from_url(url)
    worker = SimpleWorker(["interactive"], name=name, connection=client)
    worker.register_birth()
    return worker


def status(*arguments, **environ):
    command = (sys.executable, "-m", "scanner.cli", "worker", "--status", *arguments)
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})


def test_the_living_are_named_and_the_dead_are_not(url):
    here = socket.gethostname()
    assert status("--redis", url).returncode == 4
    mine = enlist(url, f"{here}-7-abc")
    shards = enlist(url, f"shards-{here}-8-abc")
    enlist(url, "elsewhere-9-abc")
    lost = enlist(url, f"{here}-10-abc")
    lost.connection.delete(lost.key)  # what the end of its time to live does
    assert set(asyncio.run(living_at(url))) == {"elsewhere-9-abc", mine.name, shards.name}
    assert asyncio.run(living_at(url, host=here)) == sorted([mine.name, shards.name])
    asked = status("--redis", url)
    assert (asked.returncode, asked.stdout.split()) == (0, sorted([mine.name, shards.name]))


def test_without_a_redis_nobody_is_ready(tmp_path):
    assert asyncio.run(living_at(f"unix://{tmp_path}/none.sock")) == []
    asked = status(LAESCAN_STATE=str(tmp_path))
    assert (asked.returncode, asked.stderr) == (4, "laescan: no worker of this machine is ready\n")


def test_the_service_of_this_machine_is_asked_where_no_redis_is_named(tmp_path):
    with redis_in(tmp_path / "redis") as url:  # where `laescan serve` keeps its own
        mine = enlist(url, f"{socket.gethostname()}-7-abc")
        assert status(LAESCAN_STATE=str(tmp_path)).stdout.split() == [mine.name]
