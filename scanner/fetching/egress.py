"""Which addresses may be reached, and sockets that enforce it.

In: an address somebody asks for. Out: a connection to exactly the address that was checked, or `BlockedAddress`.
One reason: a check of the URL is no defence (35 spellings of loopback, redirects, DNS that changes its mind);
the socket is the only place that knows where it goes.

    AddressPolicy        which (address, port) pairs are allowed
    checked_connector    aiohttp connections under a policy: every hop, IP literals included
    dial                 one plain connection under a policy (the filtering proxy uses it)
    dial_through         one through the proxy that an internal-only network has as its only door, which checks
"""

import asyncio
import base64
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Self, cast
from urllib.parse import unquote, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from scanner.errors import BlockedAddress, FetchError, Unreachable
from scanner.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
SockAddr = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]]

# IANA IPv4 and IPv6 Special-Purpose Address Registries (2025-10-09), the two multicast registries, and what is outside
# them: Azure's WireServer, site-local and IPv4-compatible addresses. `ipaddress.is_global` is not this list: it calls
# 16 of 37 sampled special addresses global (Python 3.11.7).
SPECIAL_RANGES: dict[str, str] = {
    "0.0.0.0/8": "this host on this network (RFC 791); Linux connects 0.0.0.0 to itself",
    "10.0.0.0/8": "private use (RFC 1918)",
    "100.64.0.0/10": "shared address space of carriers (RFC 6598)",
    "127.0.0.0/8": "loopback (RFC 1122)",
    "168.63.129.16/32": "Azure WireServer (Microsoft Learn), a public address that only tenants' machines reach",
    "169.254.0.0/16": "link-local (RFC 3927), cloud metadata",
    "172.16.0.0/12": "private use (RFC 1918)",
    "192.0.0.0/24": "IETF protocol assignments (RFC 6890)",
    "192.0.2.0/24": "documentation TEST-NET-1 (RFC 5737)",
    "192.31.196.0/24": "AS112-v4 (RFC 7535)",
    "192.52.193.0/24": "AMT relays (RFC 7450)",
    "192.88.99.0/24": "6to4 relay anycast, deprecated (RFC 7526)",
    "192.168.0.0/16": "private use (RFC 1918)",
    "192.175.48.0/24": "direct delegation AS112 (RFC 7534)",
    "198.18.0.0/15": "benchmarking (RFC 2544)",
    "198.51.100.0/24": "documentation TEST-NET-2 (RFC 5737)",
    "203.0.113.0/24": "documentation TEST-NET-3 (RFC 5737)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "240.0.0.0/4": "reserved (RFC 1112), limited broadcast (RFC 919)",
    "::1/128": "loopback (RFC 4291)",
    "::/128": "unspecified (RFC 4291); Linux connects it to itself",
    "::/96": "IPv4-compatible, deprecated (RFC 4291 §2.5.5.1)",
    "64:ff9b::/96": "NAT64: any IPv4 address behind it (RFC 6052)",
    "64:ff9b:1::/48": "NAT64, local use (RFC 8215)",
    "100::/64": "discard-only (RFC 6666)",
    "100:0:0:1::/64": "dummy prefix (RFC 9780)",
    "2001::/23": "IETF protocol assignments (RFC 2928): Teredo, ORCHID, benchmarking, AS112-v6, ...",
    "2001:db8::/32": "documentation (RFC 3849)",
    "2002::/16": "6to4: any IPv4 address behind it (RFC 3056)",
    "2620:4f:8000::/48": "direct delegation AS112 (RFC 7534)",
    "3fff::/20": "documentation (RFC 9637)",
    "5f00::/16": "segment routing identifiers (RFC 9602)",
    "fc00::/7": "unique local (RFC 4193)",
    "fe80::/10": "link-local (RFC 4291)",
    "fec0::/10": "site-local, deprecated (RFC 3879)",
    "ff00::/8": "multicast (RFC 4291)",
}

METADATA_SERVICES: dict[str, str] = {
    "169.254.169.254": "metadata of AWS, Azure, Google Cloud and others: hands out credentials",
    "168.63.129.16": "Azure WireServer",
    "fd00:ec2::254": "metadata of AWS over IPv6",
    "100.100.100.200": "metadata of Alibaba Cloud",
    "192.0.0.192": "metadata of Oracle Cloud",
}
"""Refused even when `allow_networks` covers them: an operator who opens a private network does not mean these."""

_SPECIAL = {ip_network(text): why for text, why in SPECIAL_RANGES.items()}
_METADATA = {ip_address(text): why for text, why in METADATA_SERVICES.items()}
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all that IANA has ever allocated; list entries outside it name the reason
_TRANSLATED = tuple(  # the last 32 bits are an IPv4 address: NAT64, IPv4-compatible, IPv4-translated (RFC 2765 §2.1)
    IPv6Network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96")
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # upper half of an ISATAP interface identifier (RFC 5214 §6.1)

# Coarse on purpose: whoever names a URL must not learn from us what an inner name resolves to. The log has the reason.
_REFUSAL = (
    "this leads to an address that is not on the public internet, so it was not fetched; "
    "save the picture or video and scan the file, or let the operator open the network with LAESCAN_ALLOW_NETWORKS"
)


@dataclass(frozen=True)
class AddressPolicy:
    """Public addresses on `allow_ports`, plus `allow_networks` on any port; never metadata services."""

    allow_networks: tuple[str, ...] = ()
    allow_ports: tuple[int, ...] = (80, 443)
    _opened: tuple[Network, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Parse the networks; raises SettingsError for one that is none (or has host bits set)."""
        try:
            opened = tuple(ip_network(text) for text in self.allow_networks)
        except ValueError as error:
            msg = f"bad allow_networks: {error}; write e.g. 192.168.7.0/24"
            raise SettingsError(msg) from error
        object.__setattr__(self, "_opened", opened)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take the policy that the settings ask for."""
        return cls(allow_networks=settings.allow_networks, allow_ports=settings.allow_ports)

    def check(self, ip: str, port: int) -> None:
        """Pass, or raise BlockedAddress; `ip` is an address as the kernel gets it, never a name."""
        reason = self.refusal(ip, port)
        if reason is not None:
            logger.info("refused to connect to %s port %d: %s", ip, port, reason)
            raise BlockedAddress(_REFUSAL)

    def refusal(self, ip: str, port: int) -> str | None:
        """Why (address, port) may not be reached; None when it may."""
        try:
            address = ip_address(ip)
        except ValueError:
            return "not an address"
        if isinstance(address, IPv6Address):
            address = address.ipv4_mapped or IPv6Address(int(address))  # without its zone
        reason = self._special(address)
        if reason is None and not self._is_opened(address) and port not in self.allow_ports:
            reason = "port not allowed"
        return reason

    def _special(self, address: Address) -> str | None:
        """Why an address, or an IPv4 address inside it, is not public; None when it is, or was opened."""
        for candidate in (address, *_embedded(address)):
            if candidate in _METADATA:
                return _METADATA[candidate]
            if self._is_opened(candidate):
                continue
            for network, why in _SPECIAL.items():
                if candidate in network:
                    return why
            if isinstance(candidate, IPv6Address) and candidate not in _GLOBAL_UNICAST:
                return "not global unicast (RFC 4291)"
        return None

    def _is_opened(self, address: Address) -> bool:
        return any(address in network for network in self._opened)


def _embedded(address: Address) -> tuple[IPv4Address, ...]:
    """IPv4 addresses that a translator or tunnel would reach for this IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    low = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo  # server and client
    if any(address in network for network in _TRANSLATED):
        return (low,)
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return (low,)
    return ()


def checked_socket_factory(policy: AddressPolicy) -> Callable[[SockAddr], socket.socket]:
    """Make aiohttp's `socket_factory`: it sees the final address of every connection, so nothing can get past it."""

    def open_socket(address: SockAddr) -> socket.socket:
        family, kind, protocol, _, target = address
        policy.check(target[0], target[1])
        return socket.socket(family, kind, protocol)

    return open_socket


class CheckedResolver(AbstractResolver):
    """Refuses a name when any of its addresses is refused: mixed answers are how DNS rebinding looks."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve once; raises BlockedAddress."""
        try:
            answers = await self._resolver.resolve(host, port, family)
        except UnicodeError as error:  # a label that no name can have
            raise socket.gaierror(socket.EAI_NONAME, "no such host") from error
        for answer in answers:
            self._policy.check(answer["host"], port)
        return answers

    async def close(self) -> None:
        """Nothing is held open."""


def checked_connector(policy: AddressPolicy, *, keep: bool = False) -> aiohttp.TCPConnector:
    """Make a connector whose every connection passed the policy; `keep` them, and names for a minute.

    No happy eyeballs: with one, a refused address loses a race instead of ending the request.
    A name that is remembered is no way around the check: it stands where the socket is made.
    """
    return aiohttp.TCPConnector(
        resolver=CheckedResolver(policy),
        socket_factory=cast("Callable[..., socket.socket]", checked_socket_factory(policy)),
        use_dns_cache=keep,
        ttl_dns_cache=60,
        happy_eyeballs_delay=None,
        force_close=not keep,
        limit=0,  # who keeps connections counts them: aiohttp's 100 would let slow hosts hold up the others
    )


async def dial(check: Callable[[str, int], None], host: str, port: int) -> socket.socket:
    """Resolve once, pass every answer to `check`, connect to the first that accepts; raises OSError besides."""
    loop = asyncio.get_running_loop()
    try:
        answers = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "no such host") from error
    for answer in answers:
        check(str(answer[4][0]), port)
    failure = OSError("no address")
    for family, kind, protocol, _, address in answers:
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)  # noqa: FBT003 the standard library's signature
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise failure


async def dial_through(proxy: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Have the proxy at http://USER:PASSWORD@HOST:PORT connect; raises BlockedAddress, else OSError or EOFError."""
    parts = urlsplit(proxy)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        secret = base64.b64encode(f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()).decode()
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        writer.write(f"CONNECT {target} HTTP/1.1\r\nProxy-Authorization: Basic {secret}\r\n\r\n".encode())
        _, status, *_ = (await reader.readuntil(b"\r\n\r\n")).split()
        _raise_refusal(int(status))
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


def _raise_refusal(status: int) -> None:
    """As errors of the one who dials: OSError is what `dial` raises of a host that does not answer."""
    if status == 200:
        return
    refusal = refused_by_proxy(status)
    raise refusal if isinstance(refusal, BlockedAddress) else ConnectionRefusedError(str(refusal))


def refused_by_proxy(status: int) -> FetchError:
    """What it means for a scan that the proxy at our only door answered, instead of a server."""
    if status == 403:
        return BlockedAddress(_REFUSAL)
    if status != 502:
        logger.error("the egress proxy answered %d; is its password that of LAESCAN_EGRESS_PROXY?", status)
    return Unreachable("no such host, or it does not answer; check the URL, or try again later")
