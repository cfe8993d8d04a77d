"""What rq is given, and what it is not."""

import asyncio
import json
import pickle
from collections.abc import Iterator

import pytest
import redis
from redis_server import redis_in
from rq.job import Job
from rq.serializers import JSONSerializer

from scanner.contract import ScanRow
from scanner.service import jobs


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    with redis_in(tmp_path_factory.mktemp("r")) as found:
        yield found


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as client:
        client.flushall()
        yield client


def row(id_: str, queue: str = "interactive") -> ScanRow:
    return ScanRow(id=id_, tenant="t", source="https://example.org/?secret", queue=queue, state="queued", created_s=0.0)


def test_a_job_names_the_function_and_the_row_and_nothing_else(url: str, client: redis.Redis) -> None:
    asyncio.run(jobs.Jobs.connect(url).enqueue(row("a1")))
    (job_id,) = jobs.queue("interactive", client).get_job_ids()
    stored = client.hgetall(f"rq:job:{job_id}")
    assert jobs.scan_of(job_id) == "a1"
    assert b"secret" not in b"".join(stored.values())
    job = Job.fetch(job_id, connection=client, serializer=JSONSerializer)
    assert (job.func_name, job.args, job.description) == ("scanner.service.jobs.scan", ["a1"], "scan")
    assert jobs.is_allowed(job)


def test_rows_go_to_their_queues_in_order_and_some_to_the_front(url: str, client: redis.Redis) -> None:
    mine = jobs.Jobs.connect(url)
    asyncio.run(mine.enqueue_many([row("a1"), row("a2"), row("b1", "bulk"), row("a3")]))
    mine.put(["a0"], "interactive", at_front=True)
    order = [jobs.scan_of(job_id) for job_id in jobs.queue("interactive", client).get_job_ids()]
    assert order == ["a0", "a1", "a2", "a3"]
    assert jobs.waiting("bulk", client) == {"b1"}


def test_the_same_row_may_have_two_jobs(url: str, client: redis.Redis) -> None:
    mine = jobs.Jobs.connect(url)
    mine.put(["a1"], "interactive")
    mine.put(["a1"], "interactive")
    assert len(set(jobs.queue("interactive", client).get_job_ids())) == 2


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(["os.system", None, ["true"], {}]).encode(),
        json.dumps(["builtins.eval", None, ["1"], {}]).encode(),
        json.dumps(["scanner.service.jobs.scan", None, [["a"]], {}]).encode(),
        json.dumps(["scanner.service.jobs.scan", None, ["a"], {"b": 1}]).encode(),
        json.dumps(["scanner.service.jobs.scan", None, ["a", "b"], {}]).encode(),
        json.dumps(["scanner.service.jobs.scan"]).encode(),
        json.dumps(None).encode(),
        pickle.dumps(("scanner.service.jobs.scan", None, ("a",), {})),
        b"\xff",
        b"",
    ],
)
def test_a_job_that_names_or_carries_anything_else_is_not_allowed(client: redis.Redis, data: bytes) -> None:
    job = Job.create("scanner.service.jobs.scan", args=("a",), connection=client, serializer=JSONSerializer)
    job.data = data
    assert not jobs.is_allowed(job)


def test_the_job_says_whose_business_it_is_where_no_worker_of_ours_runs_it() -> None:
    with pytest.raises(RuntimeError, match="laescan worker"):
        jobs.scan("a1")
