"""What tests share: a state of their own; for the API's, a Redis for each file and the application before it."""

import os
import tempfile

import pytest
from redis_server import redis_in
from service import served


def pytest_configure(config):
    """No test is to meet the service that somebody runs on this machine."""
    folder = tempfile.TemporaryDirectory(prefix="laescan-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["XDG_STATE_HOME"] = folder.name  # before test files are imported, some of which copy the environment


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def serve(redis_url, tmp_path):
    """Run an async test against an API of its own; see `served`."""
    return lambda test, **options: served(redis_url, tmp_path, test, **options)
