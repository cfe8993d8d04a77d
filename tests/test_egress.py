"""The address policy: an oracle, the ranges, the spellings; what counts is whether a canary was reached."""

import asyncio
import ipaddress
import socket

import aiohttp
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from iana import is_public
from origin import ORIGIN_HOST, ROUTED, SPELLINGS, Canary, Origin, fake_getaddrinfo

from scanner.errors import BlockedAddress
from scanner.fetching import egress
from scanner.fetching.egress import METADATA_SERVICES, SPECIAL_RANGES, AddressPolicy, checked_connector, dial
from scanner.settings import Settings, SettingsError

PUBLIC = ("1.1.1.1", "93.184.215.14", "223.255.255.254", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e")
EMBEDDING = (
    *("::ffff:{v4}", "::{v4}", "::ffff:0:{v4}", "64:ff9b::{v4}", "64:ff9b:1::{v4}", "2002:{hex}::1", "2001:0:{hex}::1"),
    *("2001:0:4136:e378:8000:63bf:{flipped}", "2606:4700::5efe:{v4}", "2606:4700::200:5efe:{v4}"),
)


def embed(form, v4):
    number = int(ipaddress.IPv4Address(v4))
    both = [f"{n >> 16:x}:{n & 0xFFFF:x}" for n in (number, number ^ 0xFFFF_FFFF)]
    return form.format(v4=v4, hex=both[0], flipped=both[1])


@pytest.fixture
def canary():
    listening = Canary()
    yield listening
    listening.close()


@pytest.fixture
def origin():
    serving = Origin()
    yield serving
    serving.close()


def refused(policy, ip, port=80):
    try:
        policy.check(ip, port)
    except BlockedAddress:
        return True
    return False


def test_the_list_is_35_ranges_and_the_ipv4_compatible_one_each_with_its_reason():
    assert len(SPECIAL_RANGES) == 36
    assert "::/96" in SPECIAL_RANGES
    assert all("RFC" in why or "Microsoft" in why for why in SPECIAL_RANGES.values())


@pytest.mark.parametrize("text", SPECIAL_RANGES)
def test_first_middle_and_last_address_of_every_special_range_is_refused(text):
    network = ipaddress.ip_network(text)
    for address in (network[0], network[network.num_addresses // 2], network[-1]):
        assert refused(AddressPolicy(), str(address)), address


@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_pass_on_web_ports_only(ip):
    policy = AddressPolicy()
    assert not refused(policy, ip, 80)
    assert not refused(policy, ip, 443)
    assert refused(policy, ip, 22)
    assert refused(policy, ip, 6379)


@pytest.mark.parametrize("form", EMBEDDING)
@pytest.mark.parametrize("v4", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.1.1"])
def test_an_inner_address_inside_an_ipv6_address_is_refused(form, v4):
    assert refused(AddressPolicy(), embed(form, v4))


@pytest.mark.parametrize("form", EMBEDDING[1:8])
def test_translators_and_tunnels_are_refused_even_with_a_public_address_inside(form):
    assert refused(AddressPolicy(), embed(form, "93.184.215.14"))


def test_a_mapped_public_address_is_that_address():
    assert not refused(AddressPolicy(), "::ffff:93.184.215.14")


@pytest.mark.parametrize("ip", METADATA_SERVICES)
def test_metadata_services_stay_blocked_when_every_network_is_opened(ip):
    everything = AddressPolicy(allow_networks=("0.0.0.0/0", "::/0"))
    assert refused(everything, ip)
    assert not refused(everything, "10.0.0.1", 8080)
    if ":" not in ip:
        assert all(refused(everything, embed(form, ip)) for form in EMBEDDING)


def test_an_opened_network_has_any_port_and_opens_nothing_else():
    policy = AddressPolicy.from_settings(Settings(allow_networks=("192.168.7.0/24", "64:ff9b::/96")))
    assert not refused(policy, "192.168.7.9", 8443)
    assert not refused(policy, "::ffff:192.168.7.9", 8443)
    assert refused(policy, "192.168.8.9")
    assert not refused(policy, "64:ff9b::93.184.215.14")  # an operator behind NAT64
    assert refused(policy, "64:ff9b::10.0.0.1")


@pytest.mark.parametrize("text", ["192.168.7.1/24", "home", "300.0.0.0/8"])
def test_a_network_that_is_none_is_a_bad_setting(text):
    with pytest.raises(SettingsError, match="allow_networks"):
        AddressPolicy(allow_networks=(text,))


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.1", "1.1.1.1.", "1.1.1.1/32", "1.1.1.1 "])
def test_what_is_not_an_address_is_refused(text):
    assert refused(AddressPolicy(), text)


def test_a_zone_does_not_hide_an_address():
    assert refused(AddressPolicy(), "fe80::1%eth0")
    assert refused(AddressPolicy(), "::1%1")
    assert refused(AddressPolicy(allow_networks=("::/0",)), "fd00:ec2::254%1")


# The oracle (`iana`) is written down apart from the code: the registries' own rows, and arithmetic on digits.


@st.composite
def near_a_range(draw):
    """Addresses around the edges of the ranges, where a policy is wrong if it is."""
    network = draw(st.sampled_from([ipaddress.ip_network(text) for text in SPECIAL_RANGES]))
    edge = int(draw(st.sampled_from([network[0], network[-1]]))) + draw(st.integers(-2, 2))
    return type(network[0])(edge % 2**network.max_prefixlen)


@given(
    st.one_of(
        st.ip_addresses(), near_a_range(), st.ip_addresses(v=4).map(lambda a: ipaddress.IPv6Address(f"::ffff:{a}"))
    )
)
@example(ipaddress.ip_address("2606:4700::5efe:7f00:1"))
def test_the_policy_agrees_with_an_independent_oracle(address):
    assert refused(AddressPolicy(), str(address)) is not is_public(address)


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDING))
def test_no_embedding_lets_more_through_than_the_address_inside(v4, form):
    assert refused(AddressPolicy(), embed(form, str(v4))) >= (not is_public(v4))


# ---------------------------------------------------------------- at the socket


async def get(url, connector):
    """GET with redirects left to aiohttp: the connector alone must hold."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(connector=connector(), timeout=timeout, trust_env=False) as session:
        try:
            async with session.get(url) as response:
                await response.read()
        except (BlockedAddress, aiohttp.ClientError, OSError, ValueError) as error:
            return error


def sweep(origin, canary, connector, spellings=SPELLINGS):
    """Every spelling as a URL and as a redirect; the ports would pass, so only the address decides."""

    async def all_of_them():
        answers = []
        for number, spelling in enumerate(spellings):
            target = f"http://{spelling}:{canary.port}/"
            origin.redirect(f"/{number}", target)
            answers += [await get(target, connector), await get(origin.url(f"/{number}"), connector)]
        return answers

    return asyncio.run(all_of_them())


@pytest.fixture
def fake_dns(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", fake_getaddrinfo(socket.getaddrinfo))


def test_no_spelling_of_loopback_reaches_a_canary(origin, canary, fake_dns):
    policy = AddressPolicy(allow_networks=(f"{ORIGIN_HOST}/32",), allow_ports=(80, 443, canary.port))
    answers = sweep(origin, canary, lambda: checked_connector(policy))
    assert canary.count() == 0
    assert len(answers) == 2 * len(SPELLINGS) >= 70
    assert answers.count(None) <= 1  # the first answer of rebind.test is the origin's address, which is open


def test_the_same_spellings_reach_the_canary_without_the_policy(origin, canary, fake_dns):
    sweep(origin, canary, aiohttp.TCPConnector, [s for s in SPELLINGS if s not in ROUTED])
    assert canary.count() >= 40  # else the test above proves nothing


def test_an_allowed_host_passes(origin):
    url = origin.answer("/here", b"yes")
    policy = AddressPolicy(allow_networks=(f"{ORIGIN_HOST}/32",))
    assert asyncio.run(get(url, lambda: checked_connector(policy))) is None
    assert [path for path, _ in origin.requests] == ["/here"]


@pytest.mark.parametrize("name", ["mixed.test", "mixed6.test", "inner.test", "metadata.test"])
def test_one_bad_answer_refuses_the_name(name, fake_dns):
    policy = AddressPolicy()
    assert isinstance(asyncio.run(get(f"http://{name}/", lambda: checked_connector(policy))), BlockedAddress)
    with pytest.raises(BlockedAddress):
        asyncio.run(dial(policy.check, name, 80))


def test_a_name_that_changes_its_mind_never_reaches_the_inside(canary, monkeypatch):
    """200 rounds of DNS rebinding: each connection goes to an address of the one answer that was checked."""
    policy = AddressPolicy(allow_ports=(canary.port,))
    answers = iter([["93.184.215.14"], ["127.0.0.1"]] * 100)
    real, dialled = socket.getaddrinfo, []
    monkeypatch.setattr(socket, "getaddrinfo", lambda _host, port, *_, **__: [
        found for address in next(answers) for found in real(address, port, 0, socket.SOCK_STREAM)])  # fmt: skip

    async def rounds():
        async def connect(_connection, address):
            dialled.append(address[0])
            raise ConnectionRefusedError

        asyncio.get_running_loop().sock_connect = connect
        for _ in range(200):
            try:
                await dial(policy.check, "rebind.test", canary.port)
            except (BlockedAddress, ConnectionRefusedError):
                continue

    asyncio.run(rounds())
    assert canary.count() == 0
    assert dialled == ["93.184.215.14"] * 100


def test_names_that_no_host_can_have_are_no_such_host():
    for name in ("a" * 64 + ".test", "x..test"):
        with pytest.raises(OSError, match="no such host"):
            asyncio.run(dial(AddressPolicy().check, name, 80))


def test_the_refusal_does_not_tell_what_an_inner_name_resolves_to():
    with pytest.raises(BlockedAddress) as first:
        AddressPolicy().check("10.0.0.7", 80)
    with pytest.raises(BlockedAddress) as second:
        AddressPolicy().check("169.254.169.254", 80)
    assert str(first.value) == str(second.value) == egress._REFUSAL
