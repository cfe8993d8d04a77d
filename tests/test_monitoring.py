"""The dashboard and the alerts ask for what a running API really shows: names, labels, and values of known labels."""

import json
import re
from pathlib import Path

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from redis_server import redis_in
from service import MODEL, URL, served

from api.metrics import METHODS
from api.routes import ENDPOINTS
from scanner.contract import Label
from scanner.errors import by_code
from scanner.service import telemetry
from scanner.service.ledger import QUEUES, TALLY

DOCKER = Path(__file__).parent.parent / "docker"
RULES = yaml.safe_load((DOCKER / "prometheus.rules.yaml").read_text("utf-8"))["groups"][0]["rules"]
BOARD = json.loads((DOCKER / "grafana.json").read_text("utf-8"))
TALLIES = ("accepted", "joined", "done", "failed", "cancelled", "poisoned", "requeued", "refused_jobs", "orphan_jobs")
LABELS = {  # of what the workers count, by metric
    telemetry.QUEUE_WAIT: {"queue": QUEUES},
    telemetry.SERVICE: {"queue": QUEUES},
    telemetry.STAGE: {"stage": ("fetch", "decode", "score", "pool")},
    telemetry.OUTCOMES: {"code": (*by_code(), *Label)},
    telemetry.CACHE: {"kind": ("miss", "exact", "near")},
}
OF_PROMETHEUS = {"up": {"job", "instance"}}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
QUERIES = [rule["expr"] for rule in RULES]
QUERIES += [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def selectors(node):
    """Every series that a parsed query asks for."""
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
        below = getattr(node, name, None)
        if isinstance(below, promql.Expr):
            yield from selectors(below)
    for argument in getattr(node, "args", ()):
        yield from selectors(argument)


def asked(query):
    """(metric, label, operator, text) for every matcher, and (metric, "", "", "") for every series."""
    for selector in selectors(promql.parse(query)):
        yield selector.name, "", "", ""
        for matcher in selector.matchers.matchers:
            yield selector.name, matcher.name, str(matcher.op), matcher.value


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What /metrics shows of a service that has done a bit of everything: by name of a sample, its labels' values."""
    found = {}

    async def ask(api):
        await api.service.cache.announce(MODEL)
        await api.submit()
        await api.ask("GET", f"/v1/verdicts?url={URL}")
        pipe = api.service.redis.pipeline()
        for name, labels in LABELS.items():
            ((label, values),) = labels.items()
            for value in values:
                if name.endswith("_seconds"):
                    telemetry.observe(pipe, name, 0.3, **{label: value})
                else:
                    telemetry.count(pipe, name, **{label: value})
        for what in TALLIES:
            pipe.hincrby(TALLY, what, 1)
        await pipe.execute()
        for family in text_string_to_metric_families((await api.ask("GET", "/metrics"))[1].decode()):
            for sample in family.samples:
                for label, value in {"": "", **sample.labels}.items():
                    found.setdefault(sample.name, {}).setdefault(label, set()).add(value)

    with redis_in(tmp_path_factory.mktemp("r")) as url:
        served(url, tmp_path_factory.mktemp("s"), ask)
    return found


def test_every_series_that_workers_can_write_is_tried_here():
    assert set(LABELS) == {
        value for name, value in vars(telemetry).items() if name.isupper() and isinstance(value, str)
    } - {telemetry.KEY}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_metrics_shows(shown, query):
    asks = list(asked(query))
    assert {name for name, *_ in asks} >= set(re.findall(r"laescan_\w+", query))
    for name, label, operator, text in asks:
        if name in RECORDED:
            continue
        labels = {**shown, **{metric: dict.fromkeys(names) for metric, names in OF_PROMETHEUS.items()}}[name]
        assert not label or label in labels, f"{name} has no label {label}"
        if label in {"status", "route", ""} or name in OF_PROMETHEUS:
            continue
        wanted = text.split("|") if "Re" in operator else [text]
        assert set(wanted) <= labels[label], f"{name} never has {label}={text}"


def test_grouping_labels_are_there(shown):
    known = {label for labels in shown.values() for label in labels} | {"instance"}
    for query in QUERIES:
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert set(group.split(", ")) <= known, query


def test_statuses_and_routes_are_what_the_door_counts(shown):
    assert shown["laescan_requests_total"]["route"] <= {endpoint.path for endpoint in ENDPOINTS}
    assert shown["laescan_requests_total"]["method"] <= METHODS


def test_tallies_are_those_that_are_counted_somewhere():
    sources = "".join(path.read_text("utf-8") for path in (DOCKER.parent / "scanner/service").glob("ledger.lua"))
    sources += "".join(path.read_text("utf-8") for path in (DOCKER.parent / "scanner/service").glob("*.py"))
    assert [what for what in TALLIES if not re.search(rf"""['"]{what}['"]""", sources)] == []


def test_the_dashboard_is_whole():
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in BOARD["panels"])
    squares = [(x, y) for p in BOARD["panels"] for x, y in _squares(p["gridPos"])]
    assert len(set(squares)) == len(squares), "panels overlap"


def _squares(place):
    rows, columns = range(place["y"], place["y"] + place["h"]), range(place["x"], place["x"] + place["w"])
    assert columns.stop <= 24
    return [(x, y) for x in columns for y in rows]


def test_every_alert_says_what_happened_and_what_to_do():
    for rule in RULES:
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "warn"}
            assert set(rule["annotations"]) == {"summary", "action"}
            assert all(words.strip().endswith((".", "?", "third.")) for words in rule["annotations"].values())
