"""Requests to addresses that users give: checked when given, and again whenever they are asked.

A name is resolved once for each request, every address that it has is checked, and the connection
goes to a checked one; so a name that answers otherwise the next time gains nothing. Certificates
are verified for the name. No redirects, no proxies, no cookies, no kept connections, and no more of
an answer than is shown. Only addresses of the public internet are asked, and those of the networks
that the operator lists (SELFTAUGHT_WEBHOOK_NETWORKS), which may also be asked by plain HTTP and on
any port.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Awaitable[Sequence[Address]]]

PORTS = frozenset({443, 8443})
MAX_URL = 2048
EXCERPT_BYTES = 1024
ANSWER_SECONDS = 5.0
"""Once an answer has begun: so long its body may take, then what has come is all there is."""

_URL = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[^/?#@:\[\]\\%]+)(?::([0-9]{1,5}))?([/?][!-~]*)?", re.I
)
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# IANA's special-purpose registries, and two addresses of clouds' own services that look public.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # carriers' NAT; a cloud's metadata, too
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's host
            "169.254.0.0/16",  # link-local; most clouds' metadata
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
            "2001::/23",  # protocol assignments: Teredo, ORCHID, ..
            "2001:db8::/32",  # documentation
            "2002::/16",  # 6to4: holds an IPv4 address
            "2620:4f:8000::/48",  # AS112
            "3fff::/20",  # documentation
        ),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
"""All that is given out of IPv6. Outside: loopback, unspecified, IPv4-mapped, NAT64, unique local,
link-local, site-local, multicast."""


class UrlRefused(ValueError):
    """An address that must not be asked; the message is fit for whoever gave it."""


@dataclass(frozen=True)
class Target:
    """A URL whose every part is understood: what any reader makes of it is the same."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def literal(self) -> Address | None:
        """The address, where the host is one and no name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def url(self) -> URL:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return URL(f"{self.scheme}://{host}:{self.port}{self.path}", encoded=True)


@dataclass(frozen=True)
class Answer:
    """A status, and the first kilobyte of what came with it."""

    status: int
    excerpt: str
    retry_after: str | None


class NoAnswer(Exception):
    """Nobody answered; the message is fit for the webhook's owner."""


def check(url: str, inside: Sequence[Network]) -> Target:
    """What a URL says, as far as that can be told without asking anybody. Raises UrlRefused.

    `inside`: the operator's networks.
    """
    found = _URL.fullmatch(url)
    if found is None or len(url) > MAX_URL or not url.isascii():
        raise UrlRefused(
            "give https://host/path: no user, no fragment, no spaces, in ASCII (names of other "
            "letters as xn--.., paths with %)"
        )
    scheme, host = found[1].lower(), found[2].lower()
    port = int(found[3] or (443 if scheme == "https" else 80))
    path = found[4] or "/"
    target = Target(scheme, _host(host), port, path if path.startswith("/") else f"/{path}")
    if "#" in path or not 0 < port < 65536:
        raise UrlRefused("a fragment (#) or this port cannot be asked")
    if not inside and (scheme != "https" or port not in PORTS):
        raise UrlRefused(f"only https, on port {' or '.join(map(str, sorted(PORTS)))}")
    if target.literal is not None:
        if not _allowed(target, [target.literal], inside):
            raise UrlRefused(f"{target.host} is no address that may be asked")
    elif not inside and "." not in target.host:
        raise UrlRefused(f"{target.host} is no name of the public internet")
    return target


async def post(
    target: Target,
    body: bytes,
    headers: Mapping[str, str],
    inside: Sequence[Network],
    seconds: float,
    lookup: Lookup | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """POST to a target, at an address that is checked now. Raises UrlRefused and NoAnswer.

    `seconds`: for all of it, up to the head of the answer. `lookup`: how names are resolved.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            addresses = await _resolve(target, lookup or _lookup)
            if not _allowed(target, addresses, inside):
                # As of a name that is not there: which names are known inside is nobody's concern.
                raise UrlRefused(f"{target.host} has no address that may be asked")
            return await _post(target, addresses, body, headers, tls, limit)
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {seconds:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NoAnswer(f"{type(error).__name__}: {error}"[:500]) from error


async def _post(
    target: Target,
    addresses: Sequence[Address],
    body: bytes,
    headers: Mapping[str, str],
    tls: ssl.SSLContext | None,
    limit: asyncio.Timeout,
) -> Answer:
    connector = aiohttp.TCPConnector(
        resolver=_Pinned(addresses),
        use_dns_cache=False,
        force_close=True,
        ssl=tls if tls is not None else True,
    )
    async with (
        aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
        ) as session,
        session.post(target.url, data=body, headers=headers, allow_redirects=False) as response,
    ):
        limit.reschedule(None)
        excerpt = b""
        with suppress(TimeoutError, aiohttp.ClientError, OSError):  # the status is what counts
            async with asyncio.timeout(ANSWER_SECONDS):
                while piece := await response.content.read(EXCERPT_BYTES - len(excerpt)):
                    excerpt += piece
        return Answer(response.status, _readable(excerpt), response.headers.get("retry-after"))


class _Pinned(AbstractResolver):
    """Knows one name: that of the target."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        pass


async def _resolve(target: Target, lookup: Lookup) -> Sequence[Address]:
    if target.literal is not None:
        return [target.literal]
    try:
        return await lookup(target.host, target.port)
    except (socket.gaierror, UnicodeError):
        return []


_resolvers = ThreadPoolExecutor(256, "resolve")  # started as needed; a slow name server holds one


async def _lookup(host: str, port: int) -> list[Address]:
    """What the system's resolver says. Raises gaierror."""
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(
        _resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    )
    return [ip_address(place[4][0]) for place in found]


def _allowed(target: Target, addresses: Sequence[Address], inside: Sequence[Network]) -> bool:
    """Whether there are addresses, and all of them may be asked in this way."""
    plain = target.scheme == "https" and target.port in PORTS
    return bool(addresses) and all(
        any(address in network for network in inside) or (plain and is_public(address))
        for address in addresses
    )


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, and hides no other one in it."""
    if address.version == 6 and address not in _GLOBAL_V6:
        return False
    return not any(address in network for network in _NOT_PUBLIC)


def _host(host: str) -> str:
    """The host in the one spelling that cannot be misread. Raises UrlRefused."""
    try:
        if host.startswith("["):
            return str(IPv6Address(host[1:-1]))
        last = host.rpartition(".")[2]
        if last.isdigit() or last.startswith("0x"):  # then some readers take it for an address
            return str(IPv4Address(host))
    except ValueError as error:
        raise UrlRefused(f"{host} is no address in its usual spelling") from error
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlRefused(f"{host} is no host name in its usual spelling")
    return host


def _readable(raw: bytes) -> str:
    """Text that can be stored and printed."""
    text = raw.decode(errors="replace")
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
