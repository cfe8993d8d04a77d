"""Requests that /openapi.json allows, and as many that it does not: no 5xx, and no answer that it does not describe.

LAESCAN_SCHEMA_EXAMPLES sets how many requests are made of each operation at most (default: a quick look; 40 make more
than a thousand).
"""

import os
import subprocess
import sys
import time
import urllib.request

import msgspec
import pytest
import redis
import schemathesis
from hypothesis import HealthCheck, given, settings
from ports import free_port
from redis_server import redis_in
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from service import MODEL

from api.openapi import describe
from api.routes import ENDPOINTS

EXAMPLES = int(os.environ.get("LAESCAN_SCHEMA_EXAMPLES", "3"))
MADE = {"requests": 0}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """`python -m api` in a process of its own, on a port that is free."""
    folder = tmp_path_factory.mktemp("api")
    with redis_in(folder / "redis") as redis_url:
        with redis.Redis.from_url(redis_url) as client:
            client.set("m1:model", msgspec.msgpack.encode(MODEL))  # as an engine does, so that /readyz says yes
        port = free_port()
        environ = {
            **os.environ,
            "LAESCAN_REDIS_URL": redis_url,
            "LAESCAN_API_PORT": str(port),
            "LAESCAN_SPOOL": str(folder / "spool"),
            "LAESCAN_MAX_QUEUED": "100000",
            "LAESCAN_STATE": str(folder),  # the key that signs receipts is made there
        }
        environ.pop("LAESCAN_SCHEMA_EXAMPLES", None)
        log = folder / "log"  # no pipe: a thousand lines fill it, and the API waits for ever
        with (
            log.open("wb") as said,
            subprocess.Popen([sys.executable, "-m", "api"], env=environ, stderr=said) as process,
        ):
            url = f"http://127.0.0.1:{port}"
            wait_until_it_answers(url, process, log)
            yield url
            process.terminate()
            assert process.wait(20) == 0
    assert "Traceback" not in log.read_text(), log.read_text()


def wait_until_it_answers(url, process, log):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline
        try:
            urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return


DESCRIPTION = msgspec.json.decode(describe(ENDPOINTS))
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DESCRIPTION).get_all_operations()]


# A URL is more than its pattern, three keys exclude each other, a file must be media: 422 is right then.
UNFIT = [CHECKS.get_one("positive_data_acceptance")]
WITH_INPUT = [
    one for one in OPERATIONS if one.definition.raw.get("parameters") or one.definition.raw.get("requestBody")
]
ROUNDS = [(one, GenerationMode.POSITIVE) for one in OPERATIONS] + [(one, GenerationMode.NEGATIVE) for one in WITH_INPUT]


@pytest.mark.parametrize(("operation", "mode"), ROUNDS, ids=lambda part: getattr(part, "label", None) or part.value)
def test_every_answer_is_as_described(address, operation, mode):
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case):
        MADE["requests"] += 1
        case.call_and_validate(base_url=address, timeout=60, excluded_checks=UNFIT)

    check()


def test_the_served_description_is_the_one_that_is_tested(address):
    with urllib.request.urlopen(f"{address}/openapi.json", timeout=60) as answer:
        assert msgspec.json.decode(answer.read()) == DESCRIPTION


def test_every_struct_is_explained():
    for name, part in DESCRIPTION["components"]["schemas"].items():
        assert part.get("description"), name


def test_requests_were_made(address):
    assert MADE["requests"] > (1_000 if EXAMPLES >= 40 else len(OPERATIONS)), MADE
