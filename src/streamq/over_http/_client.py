"""Sends requests to a gateway, with the token that is valid now.

Redirects are never followed: the token would go to another server.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import httpx

from streamq._errors import BackendUnavailableError, ConfigurationError, StreamqError
from streamq._events import StreamId
from streamq.driver_parts._credentials import mask_credentials

from ._address import GatewayAddress
from ._answers import BACKEND, MOST_BYTES, error_of, json_object, malformed
from ._token import TokenSource

_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = 30.0
_PROBLEM_BYTES = 65_536
_MOST_PAUSE_SECONDS = 5.0
_UNAUTHORIZED = 401
_OK = 200


class GatewayClient:
    """The connections to one gateway.

    Args:
        address: Where it is.
        token: What it is sent.
    """

    def __init__(self, address: GatewayAddress, token: TokenSource) -> None:
        self.address = address
        """Where the gateway is."""
        self.token = token
        """The token."""
        self._not_before = 0.0
        try:
            self._http = httpx.AsyncClient(
                follow_redirects=False,
                timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                headers={"User-Agent": "streamq"},
            )
        except (ValueError, OSError, ImportError, httpx.HTTPError, httpx.InvalidURL) as exc:
            # Proxies and certificates of the environment.
            raise ConfigurationError(
                f"an HTTP client cannot be made with the proxies and certificates that the "
                f"environment names (HTTPS_PROXY, SSL_CERT_FILE): {mask_credentials(str(exc))}"
            ) from None

    @property
    def origin(self) -> str:
        """The gateway, for messages."""
        return self.address.root

    async def get(
        self, url: str, params: Mapping[str, str], stream: StreamId | None = None
    ) -> dict[str, Any]:
        """Return an answer that is a JSON object.

        Raises:
            StreamqError: There is none.
        """
        async with self._answer(url, params, stream, {}) as response:
            body = await self._body(response, MOST_BYTES)
            if body is None:
                raise malformed(self.origin, f"more than {MOST_BYTES} bytes", stream)
        return json_object(body, self.origin, stream)

    @contextlib.asynccontextmanager
    async def pieces(
        self, url: str, params: Mapping[str, str], stream: StreamId
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a response that goes on, and yield its bytes as they come.

        Raises:
            StreamqError: It is refused. The end and the loss of an open response end the iteration.
        """
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        async with self._answer(url, params, stream, headers) as response:
            kind = response.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise malformed(self.origin, f"the content type {kind[:50]!r}", stream)
            async with contextlib.aclosing(_until_lost(response)) as found:
                yield found

    async def aclose(self) -> None:
        """Close all connections. Idempotent."""
        await self._http.aclose()

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        url: str,
        params: Mapping[str, str],
        stream: StreamId | None,
        headers: dict[str, str],
    ) -> AsyncIterator[httpx.Response]:
        """Yield an answer with status 200; its body is read by the caller."""
        # No read time-out for a response that goes on: who reads it knows its heartbeat.
        timeout = None if "Accept" in headers else _ANSWER_SECONDS
        limits = httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS, read=timeout)
        response, is_renewed = None, False
        await self._pause()
        while response is None:
            token = await self.token.get()
            bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
            with self._translated(stream):
                request = self._http.build_request(
                    "GET", url, params=params, headers=headers | bearer, timeout=limits
                )
                async with asyncio.timeout(_CONNECT_SECONDS + _ANSWER_SECONDS):
                    response = await self._http.send(request, stream=True)
            is_refused = response.status_code == _UNAUTHORIZED and self.token.refuse(token)
            if is_refused and not is_renewed:
                await response.aclose()
                response, is_renewed = None, True
        try:
            if response.status_code != _OK:
                raise await self._error(response, stream)
            yield response
        finally:
            await response.aclose()

    async def _pause(self) -> None:
        """Wait as long as the gateway has asked for when it refused the last request."""
        left = self._not_before - asyncio.get_running_loop().time()
        if left > 0:
            await asyncio.sleep(left)

    async def _error(self, response: httpx.Response, stream: StreamId | None) -> StreamqError:
        body = await self._body(response, _PROBLEM_BYTES)
        error = error_of(response.status_code, body or b"", response.headers, self.origin, stream)
        after = response.headers.get("retry-after", "")
        if error.retryable and after.isascii() and after.isdigit():
            seconds = min(float(after[:9]), _MOST_PAUSE_SECONDS)
            self._not_before = asyncio.get_running_loop().time() + seconds
        return error

    async def _body(self, response: httpx.Response, most: int) -> bytes | None:
        """Return the body; ``None`` if it is larger."""
        parts, size = [], 0
        with self._translated(None):
            async for piece in response.aiter_bytes():
                parts.append(piece)
                size += len(piece)
                if size > most:
                    return None
        return b"".join(parts)

    @contextlib.contextmanager
    def _translated(self, stream: StreamId | None) -> Any:
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as exc:
            what = mask_credentials(str(exc))
            reason = f"{type(exc).__name__}{what and ': '}{what}"
            raise BackendUnavailableError(
                f"the gateway at {self.origin} cannot be reached, or does not answer ({reason})",
                backend=BACKEND,
                stream=None if stream is None else str(stream),
            ) from None


async def _until_lost(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    with contextlib.suppress(httpx.HTTPError, OSError):
        async for piece in response.aiter_bytes():
            yield piece
