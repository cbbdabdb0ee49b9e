"""Tells clients apart by their address, and counts what each of them holds.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from streamq._errors import StreamqError

from ._allowances import Allowance
from ._log_limit import gateway_logger

_logger = gateway_logger()

_IPV6_PREFIX = 64
"""One subscriber of an IPv6 provider has at least a network of this length."""

_UNKNOWN = "unknown"
T = TypeVar("T")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ClientLimitError(StreamqError):
    """One client has taken its part of a bound; it may try again when it has released some."""

    code = "client_limit"
    retryable = True


class GatewayLimitError(StreamqError):
    """All clients together have reached a bound of the gateway."""

    code = "gateway_limit"
    retryable = True


@dataclass(frozen=True, slots=True)
class Client:
    """The sender of a request.

    Attributes:
        name: Its address, from :meth:`Clients.name`.
        tenant: The tenant whose streams it may see; empty while that is not known.
        subject: Who holds its token; ``None`` without a token.
    """

    name: str
    tenant: str = ""
    subject: str | None = None

    def __str__(self) -> str:
        return self.name


class Clients:
    """Names the client of a request.

    Args:
        trusted_proxies: Addresses or networks whose ``X-Forwarded-For`` is believed.
    """

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        self._is_warned = False
        self._trusted = [ipaddress.ip_network(each, strict=False) for each in trusted_proxies]

    def name(self, scope: Any) -> str:
        """Return the name of the client: its address, for IPv6 its network.

        Behind trusted proxies it is the last address of ``X-Forwarded-For`` that is not one of
        them: what is before it was written by the client.
        """
        peer = (scope.get("client") or (_UNKNOWN,))[0]
        address = _parse(peer)
        if self._trusted and self._is_trusted(address, peer):
            for each in reversed(_forwarded_for(scope)):
                forwarded = _parse(each)
                if forwarded is None:
                    break
                address = forwarded
                if not self._is_trusted(forwarded, each):
                    break
        elif not self._is_warned:
            self._warn(scope, address)
        if address is None:
            return str(peer)
        if address.version == 6:
            return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
        return str(address)

    def is_https(self, scope: Any) -> bool:
        """Whether the client sent a request by HTTPS, by the scope or by a trusted proxy."""
        if scope.get("scheme") == "https":
            return True
        peer = (scope.get("client") or (_UNKNOWN,))[0]
        if not self._trusted or not self._is_trusted(_parse(peer), peer):
            return False
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        return b",".join(values).rpartition(b",")[2].strip().lower() == b"https"

    def _warn(self, scope: Any, peer: Address | None) -> None:
        """Log once that there seems to be a proxy which is not named."""
        forwarded = [_parse(each) for each in _forwarded_for(scope)]
        if not forwarded or peer in forwarded:  # a server that trusts its proxy has read it
            return
        self._is_warned = True
        _logger.warning(
            "a request from %s has X-Forwarded-For, which is not used. If a proxy of yours has "
            "that address, name it in STREAMQ_GATEWAY_TRUSTED_PROXIES: until then all its users "
            "count as one client, which gets a part of each bound",
            peer or "a Unix socket",
        )

    def _is_trusted(self, address: Address | None, peer: str) -> bool:
        if address is None:  # a Unix socket: only a proxy of this host connects to one
            return peer == _UNKNOWN or not peer
        return any(address in network for network in self._trusted)


class Bound:
    """Counts what clients hold of one kind: in all, each of them, and by their quotas.

    Args:
        kind: What is counted, in the plural, for messages.
        most: Largest number in all; asked each time, since it may depend on the system.
        client_most: Largest number of one client.
        quotas: Returns the quotas that a client counts for.
    """

    def __init__(
        self,
        kind: str,
        most: Callable[[], int],
        client_most: Callable[[], int],
        quotas: Callable[[Client], Iterable[Allowance]] = lambda _: (),
    ) -> None:
        self.held = 0
        """Number held in all."""
        self._kind = kind
        self._most = most
        self._client_most = client_most
        self._quotas = quotas
        self._by_holder: Counter[str] = Counter()

    def take(self, client: Client) -> Hold:
        """Count one more; the caller releases the result.

        Raises:
            ClientLimitError: The client has its part already.
            GatewayLimitError: All of the bound is taken.
            QuotaError: The client's tenant, or the holder of its token, has its quota already.
        """
        most, client_most = self._most(), self._client_most()
        if self.held >= most:
            raise GatewayLimitError(
                f"the gateway has {self.held} {self._kind}, the most that it takes; try again later"
            )
        if self._by_holder[client.name] >= client_most:
            raise ClientLimitError(
                f"client {client} has {client_most} {self._kind}, its part of all; "
                "close some, or try again later"
            )
        quotas = tuple(self._quotas(client))
        for quota in quotas:
            if self._by_holder[quota.holder] >= quota.most:
                raise quota.exceeded(self._kind)
        self.held += 1
        holders = (client.name, *(quota.holder for quota in quotas))
        self._by_holder.update(holders)
        return Hold(lambda: self._release(holders))

    def _release(self, holders: tuple[str, ...]) -> None:
        self.held -= 1
        subtract(self._by_holder, holders)


class Hold:
    """One item that a client holds, until it is released."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give it back. Idempotent."""
        release, self._release = self._release, None
        if release is not None:
            release()


def subtract(held: Counter[T], counted: Iterable[T]) -> None:
    """Count one less of each, and forget those of which nothing is left."""
    for each in counted:
        held[each] -= 1
        if not held[each]:
            del held[each]


def _parse(text: str) -> Address | None:
    """Return an address; ``[2001:db8::1]:443`` and ``192.0.2.1:443`` have a port to remove."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _forwarded_for(scope: Any) -> list[str]:
    values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(values).decode("latin-1").split(",") if values else []
