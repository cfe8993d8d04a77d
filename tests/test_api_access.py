"""Who may call: Host, Origin, tokens, scopes, rates and tenants, route by route from the table of routes."""

import argparse
import asyncio
import time
from urllib.parse import urlsplit

import pytest
import redis
import verdicts
from redis_server import redis_in
from service import MODEL, URL

from api import limits
from api.access import is_loopback, refuse_to_expose
from api.errors import ApiError
from api.limits import Limiter
from api.middleware import STATUSES
from api.routes import ENDPOINTS
from api.token_command import run, seconds
from api.tokens import Scope, Token, Tokens
from scanner.bulk import shard_worker
from scanner.settings import Settings, SettingsError

EXTENSION = "abcdefghijklmnopabcdefghijklmnop"
GUARDED = [endpoint for endpoint in ENDPOINTS if endpoint.scope is not None]


def path_of(endpoint):
    return endpoint.path.replace("{id}", "0" * 32).replace("{bits}", "0101")


def code(body):
    return body["error"]["code"]


def name_of(endpoint):
    return f"{endpoint.method} {endpoint.path}"


# ---------------------------------------------------------------- Host and Origin


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:80", "127.0.0.1.evil.test", "", "localhost@evil.test", "10.0.0.1", "[::2]"]
)
def test_a_foreign_host_is_refused_everywhere(serve, host):
    async def test(api):
        for endpoint in ENDPOINTS:
            status, answer, _ = await api.ask(endpoint.method, path_of(endpoint), headers={"Host": host})
            assert (status, code(answer)) == (421, "host_refused"), endpoint.path

    serve(test)


def test_names_of_this_machine_and_listed_ones_are_taken(serve):
    async def test(api):
        for host in ("localhost", "LOCALHOST:8710", "127.0.0.1:1", "[::1]:8710", "127.3.2.1", "Scan.example.org:443"):
            assert (await api.ask("GET", "/healthz", headers={"Host": host}))[0] == 200

    serve(test, api_hosts=("scan.example.org",))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": f"chrome-extension://{EXTENSION[::-1]}"},
        {"Origin": f"chrome-extension://{EXTENSION}.evil.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_strangers_page_changes_nothing_and_reads_nothing(serve, headers):
    async def test(api):
        for endpoint in GUARDED:
            status, answer, sent = await api.ask(endpoint.method, path_of(endpoint), headers=headers)
            assert (status, code(answer)) == (403, "origin_refused"), endpoint.path
            assert "Access-Control-Allow-Origin" not in sent
            sent = {**headers, "Access-Control-Request-Method": endpoint.method}
            assert (await api.ask("OPTIONS", path_of(endpoint), headers=sent))[0] == 403
        assert await api.service.ledger.tally() == {}

    serve(test, extension_ids=(EXTENSION,))


def test_an_extension_that_is_not_listed_needs_a_token_that_is_good(serve):
    async def test(api):
        origin = {"Origin": "moz-extension://0b1cd5cb-0000-4000-8000-000000000000"}
        good, bad = await api.token("submit"), {"Authorization": "Bearer lae_no"}
        for headers, status in ((origin | good, 202), (origin | bad, 401), (origin, 403)):
            assert (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers))[0] == status
        page = {"Origin": "https://evil.test"} | good
        assert (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=page))[0] == 403

    serve(test)


def test_our_own_page_and_listed_extensions_may_call(serve):
    async def test(api):
        own = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
        assert (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=own))[0] == 202
        for scheme in ("chrome-extension", "moz-extension"):
            origin = f"{scheme}://{EXTENSION}"
            headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
            status, _, sent = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
            assert (status, sent["Access-Control-Allow-Origin"], sent["Vary"]) == (202, origin, "Origin")
            assert "Access-Control-Allow-Credentials" not in sent
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            status, _, sent = await api.ask("OPTIONS", "/v1/scans", headers=preflight)
            assert status == 204
            assert "Authorization" in sent["Access-Control-Allow-Headers"]

    serve(test, extension_ids=(EXTENSION,))


def test_every_answer_forbids_sniffing_and_framing_of_pages(serve):
    async def test(api):
        for path in ("/", "/docs", "/assets/app.js", "/openapi.json", "/v1/scans/x", "/nothing"):
            _, _, sent = await api.ask("GET", path)
            assert sent["X-Content-Type-Options"] == "nosniff"
            assert sent["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "Python" not in sent["Server"]
        for path in ("/", "/docs"):
            policy = (await api.ask("GET", path))[2]["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy

    serve(test)


PROXIES = [
    {"Forwarded": "for=192.0.2.60;proto=https"},
    {"X-Forwarded-For": "192.0.2.60"},
    {"X-Forwarded-Proto": "https"},
    {"Via": "1.1 caddy"},
    {"X-Real-IP": "192.0.2.60"},
]


@pytest.mark.parametrize("headers", PROXIES)
def test_whoever_comes_through_a_proxy_is_not_taken_for_this_machine(serve, headers):
    async def test(api):
        for endpoint in GUARDED:
            status, answer, _ = await api.ask(endpoint.method, path_of(endpoint), headers=headers)
            assert (status, code(answer)) == (403, "proxy_refused"), endpoint.path
            assert "LAESCAN_ACCESS=token" in answer["error"]["message"]
        shown = headers | await api.token("lookup")
        assert (await api.ask("GET", f"/v1/verdicts?url={URL}", headers=shown))[0] == 200

    serve(test)


def test_a_proxy_that_says_nothing_is_known_by_its_old_http(serve):
    """As nginx asks by default: `proxy_pass http://127.0.0.1:8117;`, and no further line."""

    async def test(api):
        old = f"GET /v1/verdicts?url={URL} HTTP/1.0\r\nHost: 127.0.0.1:8117\r\nConnection: close\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(api.url).port)
        writer.write(old.encode())
        assert b" 403 " in await reader.readline()
        writer.close()
        await writer.wait_closed()

    serve(test)


@pytest.mark.parametrize("headers", PROXIES)
def test_an_open_service_may_stand_behind_a_proxy(serve, headers):
    async def test(api):
        assert (await api.ask("GET", f"/v1/verdicts?url={URL}", headers=headers))[0] == 200

    serve(test, access="open")


# ---------------------------------------------------------------- tokens and scopes


@pytest.mark.parametrize("scope", [None, *Scope])
def test_each_route_takes_its_scope_and_those_above(serve, scope):
    async def test(api):
        headers = await api.token(scope.name) if scope else {}
        for endpoint in GUARDED:
            status, answer, sent = await api.ask(endpoint.method, path_of(endpoint), headers=headers)
            if scope is None:
                assert (status, code(answer)) == (401, "unauthenticated")
                assert sent["WWW-Authenticate"].startswith("Bearer")
            elif scope < endpoint.scope:
                assert (status, code(answer)) == (403, "scope_missing"), endpoint.path
            else:
                assert status not in {401, 403}, endpoint.path
        for path in ("/", "/healthz", "/docs"):
            assert (await api.ask("GET", path))[0] == 200

    serve(test, access="token", batches_per_min=50)


def test_a_token_that_is_wrong_revoked_or_expired_is_refused_alike(serve):
    async def test(api):
        tokens = Tokens(api.service.redis)
        good, record = await tokens.create(Scope.SUBMIT, tenant="a")
        expired, _ = await tokens.create(Scope.SUBMIT, tenant="a", lifetime_s=-1)
        path = "/v1/verdicts?url=" + URL
        assert (await api.ask("GET", path, headers={"Authorization": f"Bearer {good}"}))[0] == 200
        assert (await api.ask("GET", path, headers={"Authorization": f"bearer  {good} "}))[0] == 200
        await tokens.revoke(record.id)
        bad = [
            good,
            expired,
            good[:-1],
            good[:-1] + ("A" if good[-1] != "A" else "B"),
            "x",
            "",
            "lae_" + "0" * 12 + "_" + "A" * 43,
        ]
        messages = set()
        for text in bad:
            status, answer, _ = await api.ask("GET", path, headers={"Authorization": f"Bearer {text}"})
            assert (status, code(answer)) == (401, "unauthenticated")
            messages.add(answer["error"]["message"])
        assert len(messages) == 1
        assert (await api.ask("GET", path, headers={"Authorization": f"Basic {good}"}))[0] == 401

    serve(test)  # a token that is given is checked, also where none is needed


def test_guessing_is_slowed_down(serve):
    async def test(api):
        for _ in range(20):
            assert (await api.ask("GET", "/metrics"))[0] == 401
        for _ in range(100):  # one more is let through for every 3 s that the first took
            status, answer, headers = await api.ask("GET", "/metrics")
            if status != 401:
                break
        assert (status, code(answer)) == (429, "too_many_requests")
        assert int(headers["Retry-After"]) > 0

    serve(test, access="token")


def test_redis_holds_no_token(serve, redis_url):
    async def test(api):
        text, _ = await Tokens(api.service.redis).create(Scope.ADMIN, tenant="a")
        await api.ask("GET", "/v1/verdicts?url=" + URL, headers={"Authorization": f"Bearer {text}"})
        secret = text[17:]  # after lae_, twelve digits and _
        async for key in api.service.redis.scan_iter():
            value = await api.service.redis.get(key) if await api.service.redis.type(key) == b"string" else b""
            assert secret.encode() not in key + value

    serve(test)


def test_a_tokens_record_does_not_let_anyone_make_the_token():
    assert "secret" not in Token.__struct_fields__


def test_the_command_makes_lists_and_revokes_beside_a_service_with_its_own_redis(tmp_path):
    with redis_in(tmp_path / "redis"):
        check_command(Settings(state=str(tmp_path)))


def check_command(settings):
    made = argparse.Namespace(action="create", scope="bulk", tenant="desk", expires="12h", note="list machine")
    (text,) = run(made, settings)
    identity = text.split("_")[1]
    (line,) = run(argparse.Namespace(action="list"), settings)
    assert line.startswith(f"{identity}  bulk  tenant=desk")
    assert line.endswith("valid  list machine")
    assert text not in line
    (line,) = run(argparse.Namespace(action="revoke", id=identity), settings)
    assert "revoked" in line
    for bad in (
        {"id": "0" * 12, "action": "revoke"},
        {**vars(made), "tenant": "a b"},
        {**vars(made), "tenant": shard_worker.TENANT},  # that of queued lists
        {**vars(made), "expires": "soon"},
    ):
        with pytest.raises(SettingsError):
            run(argparse.Namespace(**bad), settings)
    assert seconds("4w") == 4 * 7 * 86_400


# ---------------------------------------------------------------- rates


def test_a_token_that_asks_too_often_is_told_to_wait(serve):
    async def test(api):
        headers = await api.token("submit")
        for left in (1, 0):
            status, _, sent = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
            assert (status, sent["RateLimit-Policy"]) == (202, '"submit";q=2;w=60')
            assert sent["RateLimit"].startswith(f'"submit";r={left};t=')
        status, answer, sent = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
        assert (status, code(answer)) == (429, "too_many_requests")
        assert 0 < int(sent["Retry-After"]) <= 30
        assert (await api.ask("GET", "/v1/verdicts?url=" + URL, headers=headers))[0] == 200  # another policy
        other = await api.token("submit")
        assert (await api.ask("POST", "/v1/scans", json={"url": URL}, headers=other))[0] == 202  # another token
        assert "RateLimit" not in (await api.ask("POST", "/v1/scans", json={"url": URL}))[2]  # this machine itself

    serve(test, submits_per_min=2)


def test_a_token_holds_so_many_answers_open_and_no_more(serve, monkeypatch):
    monkeypatch.setattr(limits, "MOST_HELD", 2)

    async def test(api):
        mine, other = await api.token("submit"), await api.token("submit")
        path = f"/v1/scans/{await api.submit()}"
        streams = [await api.http.get(f"{api.url}{path}/events", headers=mine) for _ in range(2)]
        assert [stream.status for stream in streams] == [200, 200]
        for asked in (f"{path}/events", f"{path}?wait=1"):
            status, answer, sent = await api.ask("GET", asked, headers=mine)
            assert (status, code(answer), sent["Retry-After"]) == (429, "too_many_requests", "5")
        assert (await api.ask("GET", path, headers=mine))[0] == 200
        assert (await api.ask("GET", f"{path}?wait=0.01", headers=other))[0] == 200
        streams[0].close()
        async with asyncio.timeout(60):
            while (await api.ask("GET", f"{path}?wait=0.01", headers=mine))[0] == 429:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.05)
        streams[1].close()

    serve(test)


def test_no_race_lets_more_through_and_time_brings_back_room(redis_url):
    async def check():
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.flushall()
            limiters = [Limiter(client), Limiter(client)]
            asked = [limiters[i % 2].spend("a", policy="p", per_min=6_000) for i in range(30)]
            assert all(leave.passed for leave in await asyncio.gather(*asked))
            passed = [await limiters[0].spend("b", policy="p", per_min=10) for _ in range(12)]
            assert [leave.passed for leave in passed] == [True] * 10 + [False] * 2
            assert 0 < passed[-1].wait_s <= 6
            assert [leave.left for leave in passed[:10]] == list(range(9, -1, -1))
            fast = [await limiters[0].spend("c", policy="p", per_min=6_000) for _ in range(100)]
            assert fast[0].reset_s == pytest.approx(0.01)
            deadline = time.monotonic() + 10
            while not (await limiters[0].spend("c", policy="p", per_min=6_000)).passed:
                assert time.monotonic() < deadline
            ttl_ms = await client.pttl("laescan:limit:p:b")
            assert 0 < ttl_ms <= 61_000

    asyncio.run(check())


# ---------------------------------------------------------------- tenants


def test_another_tenants_scans_are_as_absent_as_unknown_ones(serve):
    async def test(api):
        mine, theirs = await api.token("bulk", tenant="a"), await api.token("bulk", tenant="b")
        _, scan, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=mine)
        _, batch, _ = await api.ask("POST", "/v1/batches", json={"urls": [URL]}, headers=mine)
        paths = [("GET", f"/v1/scans/{scan['id']}{rest}") for rest in ("", "/events", "/report", "/overlay", "?wait=1")]
        paths += [
            ("DELETE", f"/v1/scans/{scan['id']}"),
            ("GET", f"/v1/batches/{batch['id']}"),
            ("GET", batch["results"]),
        ]
        for method, path in paths:
            theirs_answer = await api.ask(method, path, headers=theirs)
            unknown = await api.ask(
                method, path.replace(scan["id"], "0" * 32).replace(batch["id"], "0" * 32), headers=theirs
            )
            assert theirs_answer[0] == unknown[0] == 404, path
            assert theirs_answer[1]["error"]["message"] == unknown[1]["error"]["message"]
        assert (await api.ask("GET", f"/v1/scans/{scan['id']}", headers=mine))[1]["state"] == "queued"
        _, other, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=theirs)
        assert other["id"] != scan["id"]  # nor are they joined, which would tell

    serve(test)


def test_what_one_tenant_checked_by_url_another_is_not_told(serve):
    async def test(api):
        await api.service.cache.announce(MODEL)
        await api.service.cache.remember(verdicts.still(verdicts.scored(verdicts.HIGH)), url=URL, tenant="a")
        for tenant, known in (("a", True), ("b", False)):
            headers = await api.token("submit", tenant=tenant)
            answer = (await api.ask("GET", f"/v1/verdicts?url={URL}", headers=headers))[1]
            assert bool(answer["verdicts"]) is known
            status, _, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=headers)
            assert status == (200 if known else 202)

    serve(test)


# ---------------------------------------------------------------- exposure and the table


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_loopback_is_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "", "1", "localhost.evil.test"])
def test_nothing_else_is_loopback(host):
    assert not is_loopback(host)


def test_nobody_is_exposed_without_having_said_so():
    for exposed in ({"api_host": "0.0.0.0"}, {"api_hosts": ("scan.example.org",)}):
        with pytest.raises(SettingsError, match="LAESCAN_ACCESS"):
            refuse_to_expose(Settings(**exposed))
        for access in ("token", "open"):
            refuse_to_expose(Settings(access=access, **exposed))
    refuse_to_expose(Settings())


def leaves(error):
    return [leaf for child in error.__subclasses__() for leaf in (child, *leaves(child))]


def test_every_refusal_has_a_status_and_every_route_names_real_codes():
    codes = {leaf.code for leaf in leaves(ApiError)} | {"internal"}
    assert codes <= set(STATUSES)
    assert {code for endpoint in ENDPOINTS for code in endpoint.refusals} <= set(STATUSES)
    assert all(400 <= status < 600 for status in STATUSES.values())


def test_a_bug_is_a_500_with_an_id_and_no_trace(serve, caplog, monkeypatch):
    async def test(api):
        async def broken(*_args, **_options):
            raise ZeroDivisionError

        monkeypatch.setattr(api.service.ledger, "get", broken)
        status, answer, headers = await api.ask("GET", f"/v1/scans/{'0' * 32}")
        assert (status, code(answer)) == (500, "internal")
        assert "ZeroDivision" not in str(answer)
        assert answer["error"]["request_id"] == headers["X-Request-Id"]
        assert answer["error"]["request_id"] in caplog.text

    serve(test)
