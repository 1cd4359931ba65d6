"""Where a project may be: its address comes from people and its answers from strangers, and Tides stands in a network
of which neither may make it ask anything else.

This machine, its own segment (where clouds answer with their secrets) and what is no host's address are asked only
where they are named. Private networks are not in question: an enterprise's own project is there.
"""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from libs.boinc.web.errors import ProjectUnavailable

_Address = IPv4Address | IPv6Address
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_EMBEDDING = ipaddress.ip_network("64:ff9b::/96")
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254")
)
"""Where clouds answer their machines with secrets, beside 169.254.169.254."""


class OutOfReach(ProjectUnavailable):
    """The address is one that no project is asked at."""

    def __init__(self) -> None:
        super().__init__(
            "The project's address leads to this machine or its own network segment, where no project is asked; "
            "TIDES_BOINC_LOCAL_PROJECTS names exceptions."
        )


@dataclass(frozen=True, slots=True)
class Reach:
    """What is asked although it is near: hosts by name, and networks. By default nothing."""

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def insist_on(self, host: str, address: str) -> None:
        """Raise OutOfReach where the host's address is near and not excepted."""
        if host.lower() in self.hosts:
            return
        found = _plain(address)
        if is_near(found) and not any(found in network for network in self.networks):
            raise OutOfReach


FAR = Reach()
ANYWHERE = Reach(networks=(ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))
"""For a person on their own computer."""


def reach_of(text: str) -> Reach:
    """The exceptions: names, addresses and networks, separated by commas. Raises ValueError with a sentence."""
    hosts: set[str] = set()
    networks: list[IPv4Network | IPv6Network] = []
    for word in filter(None, (each.strip().lower() for each in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(word))
        except ValueError:
            if "/" in word or ":" in word or not word.replace("-", "").replace(".", "").isalnum():
                raise ValueError(f"{word!r} is no host's name, address or network") from None
            hosts.add(word)
    return Reach(frozenset(hosts), tuple(networks))


def is_near(address: _Address) -> bool:
    """Whether it is this machine, its own segment, a cloud's own service, or no host's address."""
    if isinstance(address, IPv4Address) and address in _THIS_NETWORK:
        return True
    return (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or address in _METADATA
    )


def open_http(reach: Reach) -> aiohttp.ClientSession:
    """A session that connects to what is within reach alone, by whatever name, and remembers no cookies."""
    connector = aiohttp.TCPConnector(resolver=_Resolver(reach), use_dns_cache=False)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def insist_on_url(url: URL, reach: Reach) -> None:
    """Raise OutOfReach for an address in numbers that is not within reach: no resolver sees those."""
    host = url.host or ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    reach.insist_on(host, host)


class _Resolver(AbstractResolver):
    """What is connected to is what was judged: a name that changes its address in between changes nothing."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._names = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found: Sequence[ResolveResult] = await self._names.resolve(host, port, family)
        for each in found:
            self._reach.insist_on(host, each["host"])
        return list(found)

    async def close(self) -> None:
        await self._names.close()


def _plain(text: str) -> _Address:
    """The address, and that of version four which one of version six stands for."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, IPv4Address):
        return address
    if address in _EMBEDDING:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
