"""Makes a connection of libpq, so that a connecting that is cancelled leaves no socket behind.

psycopg's own ``connect`` leaves a socket that is being connected to the garbage collector if it is
cancelled, and resolves each name in a thread for each try.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus
from psycopg.pq.abc import PGconn as LibpqConnection

from streamq.driver import OneThread
from streamq_postgres._errors import RefusedError, code_of_text, short_reason

_DEFAULT_PORT = "5432"


@dataclass(frozen=True, slots=True)
class HostAddress:
    """One place to connect to.

    Attributes:
        host: Name or address of the host, or directory of a socket; what a certificate has to name.
        port: Port.
        address: Its address, as far as it is known.
    """

    host: str
    port: str
    address: str = ""

    def __str__(self) -> str:
        return self.host if self.host.startswith("/") else f"{self.host}:{self.port}"

    @property
    def parameters(self) -> dict[str, str]:
        """What libpq calls it."""
        found = {"host": self.host, "port": self.port, "hostaddr": self.address}
        return {name: value for name, value in found.items() if value}


def targets_of(parameters: Mapping[str, str]) -> list[HostAddress]:
    """Return the places that the parameters of libpq name, in order."""
    addresses = parameters.get("hostaddr", "").split(",")
    hosts = parameters.get("host", "").split(",")
    if not parameters.get("host"):
        hosts = addresses if parameters.get("hostaddr") else ["localhost"]
    ports = (parameters.get("port") or _DEFAULT_PORT).split(",")
    ports = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    addresses = addresses if len(addresses) == len(hosts) else [""] * len(hosts)
    return [
        HostAddress(host, port or _DEFAULT_PORT, address)
        for host, port, address in zip(hosts, ports, addresses, strict=True)
    ]


class Dialer:
    """Connects to the first of several places that takes us.

    Args:
        targets: The places.
        seconds: Longest time for each address.
    """

    def __init__(self, targets: list[HostAddress], seconds: float) -> None:
        self._targets = targets
        self._seconds = seconds
        self._names = OneThread()

    async def dial(self, parameters: Mapping[str, str]) -> LibpqConnection:
        """Return a connection of libpq, logged in.

        Cancellation: leaves nothing behind but a thread that ends with the name server's answer.

        Args:
            parameters: The parameters of libpq, without the places.

        Raises:
            RefusedError: No place takes us.
        """
        refusals: list[tuple[HostAddress, str]] = []
        for target in self._targets:
            try:
                places = await self._resolved(target)
            except OSError as exc:
                refusals.append((target, exc.strerror or str(exc)))
                continue
            for place in places:
                try:
                    async with asyncio.timeout(self._seconds):
                        text = make_conninfo("", **{**parameters, **place.parameters})
                        return await _dial(text)
                except TimeoutError:
                    refusals.append((place, f"no answer within {self._seconds:g} s"))
                except RefusedError as exc:
                    refusals.append((place, str(exc)))
        codes = [code for _, text in refusals if (code := code_of_text(text))]
        texts = dict.fromkeys(
            text if len(self._targets) == 1 else f"{place}: {text}" for place, text in refusals
        )
        # A wrong password is to be mended, whatever the other places say.
        code = next((each for each in codes if each.startswith("28")), codes[-1] if codes else "")
        raise RefusedError("; ".join(texts), code)

    async def _resolved(self, target: HostAddress) -> list[HostAddress]:
        """Return the addresses of a target; a name is resolved once for all that connect.

        A resolution cannot be cancelled, and keeps a thread until the system gives up.
        """
        if target.address or target.host.startswith(("/", "@")) or _is_address(target.host):
            return [target]
        lookup = functools.partial(
            socket.getaddrinfo, target.host, int(target.port), type=socket.SOCK_STREAM
        )
        answers = await self._names.call(lookup, target)
        found = dict.fromkeys(str(each[4][0]) for each in answers)
        return [HostAddress(target.host, target.port, each) for each in found]


async def _dial(text: str) -> LibpqConnection:
    pgconn = PGconn.connect_start(text.encode())
    try:
        status = PollingStatus.WRITING  # connect_poll is not to be called before
        while pgconn.status != ConnStatus.BAD and status != PollingStatus.FAILED:
            if status == PollingStatus.OK:
                pgconn.nonblocking = 1
                return pgconn
            await _ready(pgconn.socket, is_write=status == PollingStatus.WRITING)
            status = PollingStatus(pgconn.connect_poll())
        reason = short_reason(pgconn.error_message.decode(errors="replace"))
    except BaseException:
        pgconn.finish()
        raise
    pgconn.finish()
    raise RefusedError(reason)


async def _ready(number: int, *, is_write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if is_write else (loop.add_reader, loop.remove_reader)
    )
    add(number, _set, ready)
    try:
        await ready
    finally:
        remove(number)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
