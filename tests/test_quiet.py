"""Hosts that ask to be left alone: whom that holds back, for how long, and when it is enough."""

import pytest
import redis
from redis_server import redis_in
from verdicts import LOW, scored, still

from scanner.contract import Failure, Outcome, ScanRequest
from scanner.errors import RateLimited
from scanner.service import quiet

ANSWERED = Outcome(source="", verdict=still(scored(LOW)))


def ask(url, queue="bulk", tenant="t"):
    return ScanRequest(source_url=url, tenant=tenant, queue=queue)


BUSY = ask("https://Busy.example:8443/1.jpg")
OTHER = ask("http://busy.example/2.jpg")


def busy(retry_after_s):
    failure = Failure(code="rate_limited", message="429", retryable=True, retry_after_s=retry_after_s)
    return Outcome(source="", failure=failure)


@pytest.fixture
def client(tmp_path):
    with redis_in(tmp_path / "redis") as url, redis.Redis.from_url(url) as client:
        yield client


def hear(client, request, outcome):
    with client.pipeline() as pipe:
        quiet.hear(pipe, request, outcome)
        pipe.execute()


def test_a_retry_after_holds_back_the_bulk_scans_of_its_host_and_tenant_and_of_no_other(client):
    hear(client, BUSY, busy(90))
    assert 0 < quiet.wait_s(client, OTHER) <= 90
    page, stranger = ask("http://busy.example/2.jpg", "interactive"), ask("http://busy.example/2.jpg", tenant="u")
    for request in (ask("https://busy.example.org/"), page, stranger):
        assert quiet.wait_s(client, request) == 0
    assert not any(b"busy" in key for key in client.scan_iter())


@pytest.mark.parametrize("outcome", [ANSWERED, busy(None), busy(0.0)])
def test_who_asks_for_no_time_gets_none(client, outcome):
    hear(client, BUSY, outcome)
    assert quiet.wait_s(client, OTHER) == 0
    assert client.dbsize() == 0


def test_what_is_no_url_waits_for_nobody(client):
    for request in (ScanRequest(upload="u", tenant="t", queue="bulk"), ask("http://[::1/")):
        hear(client, request, busy(90))
        assert quiet.wait_s(client, request) == 0


def test_a_host_that_asks_for_too_long_or_again_and_again_is_waited_for_no_more(client):
    hear(client, BUSY, busy(86_400))
    with pytest.raises(RateLimited, match="not asked this time"):
        quiet.wait_s(client, OTHER)
    client.flushall()
    hear(client, BUSY, busy(90))
    (since,) = client.keys("laescan:unheeded:*")
    client.pexpire(since, int(1000 * (quiet.PATIENCE_S + 60)))  # as if nine of the ten minutes were over
    hear(client, BUSY, busy(90))  # and it says so again
    with pytest.raises(RateLimited):
        quiet.wait_s(client, OTHER)
    hear(client, BUSY, ANSWERED)
    assert 0 < quiet.wait_s(client, OTHER) <= 90  # it does answer, now and then
