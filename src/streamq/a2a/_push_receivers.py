"""Decides which receivers may get push notifications: by address of the web, and of the network.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from streamq._networks import networks_of
from streamq._settings import Settings

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LONGEST_URL = 2_048
_RESOLVE_SECONDS = 5.0
_RESOLVING = ThreadPoolExecutor(8, thread_name_prefix="streamq-push-names")
"""Clients choose the names: slow ones delay each other, and nothing else of the process."""
_PRINTABLE = re.compile(r"[!-~]+")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_METADATA = frozenset(
    map(
        ipaddress.ip_address,
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
"""Services that give a host its credentials, at addresses that are not link-local: of Alibaba,
Azure, Oracle, AWS and Google. That of Azure looks like one of the public internet."""


class ReceiverRefusedError(Exception):
    """A receiver may not get notifications. The text is for the client that named it."""


@dataclass(frozen=True, slots=True)
class ReceiverAddress:
    """Address of a receiver, taken apart once, so that nothing reads it differently later.

    Attributes:
        scheme: ``http`` or ``https``.
        host: Name or address of the host, in lower case.
        port: Its port.
        target: Path and query.
    """

    scheme: str
    host: str
    port: int
    target: str


class Receivers:
    """The receivers that the settings permit.

    Args:
        settings: Where notifications may go.
    """

    def __init__(self, settings: Settings) -> None:
        self._networks = networks_of(settings.a2a_push_networks)
        self._may_be_http = settings.a2a_push_http
        names = map(str.strip, settings.a2a_push_receivers.lower().split(","))
        self._names = [name for name in names if name]

    def parse(self, url: str) -> ReceiverAddress:
        """Take an address apart.

        Raises:
            ReceiverRefusedError: Nothing is sent to such an address.
        """
        if len(url) > _LONGEST_URL or not _PRINTABLE.fullmatch(url) or "\\" in url:
            raise ReceiverRefusedError(
                f"The push notification url has to have 1 to {_LONGEST_URL} printable ASCII "
                "characters"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ReceiverRefusedError("The push notification url cannot be read") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ReceiverRefusedError("The push notification url has to begin with https://")
        if parts.scheme == "http" and not self._may_be_http:
            raise ReceiverRefusedError("The push notification url has to begin with https://")
        if "@" in parts.netloc or "%" in parts.netloc or port == 0:
            raise ReceiverRefusedError(
                "The push notification url may have no user, password, zone or port 0; give "
                "credentials as authentication"
            )
        host = parts.hostname.rstrip(".")
        if not host or not self._is_named(host):
            raise ReceiverRefusedError(f"Push notifications may not be sent to the host {host!r}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return ReceiverAddress(parts.scheme, host, port or _port_of(parts.scheme), target)

    async def check(self, url: str) -> None:
        """Refuse a receiver whose address is not permitted now; an unknown host is not refused.

        The host may become known later, and be another one: :meth:`addresses` checks again.

        Raises:
            ReceiverRefusedError: It is not permitted.
        """
        receiver = self.parse(url)
        with contextlib.suppress(OSError):
            await self.addresses(receiver.host, receiver.port)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, each of which may be connected to.

        Raises:
            ReceiverRefusedError: One of them is not permitted.
            OSError: There are none, or no answer in five seconds.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await loop.run_in_executor(_RESOLVING, _resolve, host, port)
        except (TimeoutError, UnicodeError) as exc:
            raise OSError(f"the host {host!r} cannot be resolved") from exc
        addresses = list(dict.fromkeys(str(each[0]) for each in found))
        for each in addresses:
            if not self._permits(each):
                raise ReceiverRefusedError(
                    f"The host {host!r} is not on the public internet, and push notifications are "
                    "not sent to it"
                )
        return addresses

    def _is_named(self, host: str) -> bool:
        return not self._names or any(
            host.endswith(name[1:]) if name.startswith("*.") else host == name
            for name in self._names
        )

    def _permits(self, text: str) -> bool:
        try:
            address = _unwrapped(ipaddress.ip_address(text))
        except ValueError:
            return False  # with a zone, for example
        never = address.is_link_local or address.is_multicast or address.is_unspecified
        if never or address in _METADATA:
            return False
        if any(address in network for network in self._networks):
            return True
        is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        return address.is_global and not address.is_reserved and not is_site_local


def _resolve(host: str, port: int) -> list[tuple[object, ...]]:
    return [each[4] for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address to which an IPv6 one leads, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _port_of(scheme: str) -> int:
    return 443 if scheme == "https" else 80
