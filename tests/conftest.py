"""What the tests of the API share: a Redis for each file, and the application before it."""

import pytest
from redis_server import redis_in
from service import served


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_in(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def serve(redis_url, tmp_path):
    """Run an async test against an API of its own; see `served`."""
    return lambda test, **options: served(redis_url, tmp_path, test, **options)
