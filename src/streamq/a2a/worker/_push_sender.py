"""Posts push notifications to one receiver, at addresses that were checked when it connects.

Needs httpcore and joserfc.

Design: docs/design/a2a-push.md.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import httpcore

from streamq._errors import error_text
from streamq._settings import Settings
from streamq.a2a._entries import Json
from streamq.a2a._push_config import PushConfig
from streamq.a2a._push_receivers import ReceiverRefusedError, Receivers
from streamq.a2a._push_sealing import opened
from streamq.a2a._push_signing import SIGNATURE_HEADER, TOKEN_HEADER, configured_signer

_LARGEST_ANSWER = 65_536
_KEPT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a receiver answered.

    Attributes:
        status: Status of HTTP; 0 without an answer.
        problem: Why there is none, for the log.
        retry_after: For how many seconds the receiver wants to be left alone.
        is_refused: Whether nothing may be sent to the receiver.
    """

    status: int = 0
    problem: str = ""
    retry_after: float = 0.0
    is_refused: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the receiver has taken the notification."""
        return 200 <= self.status < 300

    def __str__(self) -> str:
        return f"status {self.status}" if self.status else self.problem


class NotificationSender:
    """Posts the notifications of one task to one receiver, by one connection at a time.

    It follows no redirect, uses no proxy of the environment, and keeps nothing of an answer.

    Args:
        config: Where they go.
        settings: Where they may go, and the keys.
        task_id: Id of the task.

    Raises:
        ConfigurationError: A key cannot be used.
    """

    def __init__(self, config: PushConfig, settings: Settings, task_id: str) -> None:
        self._config, self._task_id = opened(config, settings), task_id
        self._signer = configured_signer(settings)
        self._receivers = Receivers(settings)
        self._seconds = settings.a2a_push_timeout_seconds
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=1,
            keepalive_expiry=_KEPT_SECONDS,
            network_backend=_CheckedConnections(self._receivers),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.aclose()

    async def post(self, content: Json) -> Answer:
        """Send a notification once, and return how the receiver answered.

        Cancellation: the receiver may have got it.
        """
        body = json.dumps(content, separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(self._seconds):
                return await self._post(body)
        except ReceiverRefusedError as exc:
            return Answer(problem=str(exc), is_refused=True)
        except TimeoutError:
            return Answer(problem=f"no answer in {self._seconds:g} s")
        except (OSError, httpcore.NetworkError, httpcore.TimeoutException) as exc:
            return Answer(problem=f"no connection: {type(exc).__name__}: {error_text(exc)}")
        except (httpcore.ProtocolError, httpcore.ConnectionNotAvailable) as exc:
            return Answer(problem=f"no answer of HTTP: {error_text(exc)}")

    async def _post(self, body: bytes) -> Answer:
        receiver = self._receivers.parse(self._config.url)
        url = httpcore.URL(
            scheme=receiver.scheme,
            host=receiver.host.encode(),
            port=receiver.port,
            target=receiver.target.encode(),
        )
        headers = self._headers(body)
        async with self._pool.stream("POST", url, headers=headers, content=body) as response:
            size = 0
            async for part in response.aiter_stream():
                size += len(part)
                if size > _LARGEST_ANSWER:
                    break  # and the connection is closed
            return Answer(response.status, retry_after=_retry_after(response.headers))

    def _headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        config = self._config
        found = {
            "Content-Type": "application/a2a+json",
            "Accept": "*/*",
            "User-Agent": "streamq",
            "A2A-Version": "1.0",
        }
        if config.token:
            found[TOKEN_HEADER] = config.token
        if config.scheme and config.credentials:
            found["Authorization"] = f"{config.scheme} {config.credentials}"
        if self._signer is not None:
            signature = self._signer.sign(
                body, issuer=config.issuer, receiver=config.url, task_id=self._task_id
            )
            found[SIGNATURE_HEADER] = signature
            if config.scheme.lower() == "bearer" and not config.credentials:
                found["Authorization"] = f"Bearer {signature}"
        return [(name.encode(), value.encode("latin-1")) for name, value in found.items()]


class _CheckedConnections(httpcore.AsyncNetworkBackend):
    """Connects to addresses of a host that may be connected to, and to no others.

    The address that is checked is the one that is connected to: the name is not resolved again.

    Args:
        receivers: Which addresses may be connected to.
    """

    def __init__(self, receivers: Receivers) -> None:
        self._receivers = receivers
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - of the base class
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers."""
        failure: Exception = OSError(f"the host {host!r} has no address")
        for address in await self._receivers.addresses(host, port):
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._inner.sleep(seconds)


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float:
    """Return the seconds that an answer wants to be waited; those forms with a date count as 0."""
    for name, value in headers:
        if name.lower() == b"retry-after" and value.isdigit() and len(value) < 10:
            return float(value)
    return 0.0
