"""Which addresses are public, by IANA's own tables, written down apart from the code that is tested.

Rows are those of the IPv4 and IPv6 Special-Purpose Address Registries (2025-10-09) with their column "Globally
Reachable", of the IPv4 Address Space and the IPv6 Address Space registries; `OURS` are the addresses that we refuse
although IANA calls them reachable, each for a reason of its own. Arithmetic on text, no `ipaddress` networks.
"""

import ipaddress

# block, globally reachable
SPECIAL_V4 = """
0.0.0.0/8 no           0.0.0.0/32 no          10.0.0.0/8 no          100.64.0.0/10 no       127.0.0.0/8 no
169.254.0.0/16 no      172.16.0.0/12 no       192.0.0.0/24 no        192.0.0.0/29 no        192.0.0.8/32 no
192.0.0.9/32 yes       192.0.0.10/32 yes      192.0.0.170/32 no      192.0.0.171/32 no      192.0.2.0/24 no
192.31.196.0/24 yes    192.52.193.0/24 yes    192.88.99.0/24 no      192.168.0.0/16 no      192.175.48.0/24 yes
198.18.0.0/15 no       198.51.100.0/24 no     203.0.113.0/24 no      240.0.0.0/4 no         255.255.255.255/32 no
"""
SPECIAL_V6 = """
::1/128 no             ::/128 no              ::ffff:0:0/96 no       64:ff9b::/96 yes       64:ff9b:1::/48 no
100::/64 no            100:0:0:1::/64 no      2001::/23 no           2001::/32 no           2001:1::1/128 yes
2001:1::2/128 yes      2001:1::3/128 yes      2001:2::/48 no         2001:3::/32 yes        2001:4:112::/48 yes
2001:10::/28 no        2001:20::/28 yes       2001:30::/28 yes       2001:db8::/32 no       2002::/16 no
2620:4f:8000::/48 yes  3fff::/20 no           5f00::/16 no           fc00::/7 no            fe80::/10 no
"""
OURS = """
192.0.0.9/32         port control protocol, anycast: the carrier's own box
192.0.0.10/32        TURN, anycast: the same
192.31.196.0/24      AS112: answers of name servers, no web
192.52.193.0/24      AMT relays: multicast by tunnel
192.175.48.0/24      AS112
168.63.129.16/32     Azure's WireServer: allocated like any other, but only tenants' machines reach it
2620:4f:8000::/48    AS112
2001::/23            IETF protocol assignments, the reachable ones among them: none has pictures
"""


def bits(address: str) -> str:
    """The address as a string of 32 or 128 digits."""
    return "".join(f"{byte:08b}" for byte in ipaddress.ip_address(address).packed)


def _prefix(block: str) -> str:
    address, _, length = block.partition("/")
    return bits(address)[: int(length)]


def _registry(table: str) -> dict[str, bool]:
    words = table.split()
    return {_prefix(block): said == "yes" for block, said in zip(words[::2], words[1::2], strict=True)}


_OURS = [line.split()[0] for line in OURS.strip().splitlines()]
_REGISTRY = {4: _registry(SPECIAL_V4), 6: _registry(SPECIAL_V6)}
_REFUSED = {v: [_prefix(block) for block in _OURS if (":" in block) == (v == 6)] for v in (4, 6)}
_MULTICAST_V4 = "1110"  # IPv4 Address Space registry: 224/8 to 239/8
_UNICAST_V6 = "001"  # IPv6 Address Space registry: 2000::/3 is all that is global unicast
_MAPPED = bits("::ffff:0:0")[:96]
_ISATAP = ("00000000000000000101111011111110", "00000010000000000101111011111110")  # RFC 5214: [02]00:5efe


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether a scan may go there: the most specific row of a registry says so, and we have nothing against it."""
    digits, version = bits(str(address)), address.version
    if version == 6 and digits.startswith(_MAPPED):
        return is_public(ipaddress.IPv4Address(int(digits[96:], 2)))
    if version == 6 and digits[64:96] in _ISATAP and not is_public(ipaddress.IPv4Address(int(digits[96:], 2))):
        return False
    if digits.startswith(_MULTICAST_V4) if version == 4 else not digits.startswith(_UNICAST_V6):
        return False
    rows = [prefix for prefix in _REGISTRY[version] if digits.startswith(prefix)]
    is_reachable = not rows or _REGISTRY[version][max(rows, key=len)]
    return is_reachable and not any(digits.startswith(prefix) for prefix in _REFUSED[version])
