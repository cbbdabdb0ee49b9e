"""Fetches the keys that an issuer publishes, and follows their rotation.

Design: docs/design/access.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

import httpx
from joserfc.jwk import Key

from streamq._errors import StreamqError, error_text

from ._errors import IssuerUnavailableError
from ._keys import matching, published_keys

_FRESH_SECONDS = 600.0
_AGAIN_SECONDS = 15.0
_FETCH_SECONDS = 5.0
_MOST_BYTES = 262_144

_logger = logging.getLogger("streamq")


class RemoteKeys:
    """Keys at an address, for one event loop.

    They are fetched at first use, after ten minutes, and when a token names a key that is not
    known, but at most every 15 s: a flood of invented names asks the issuer no more often. Requests
    do not wait for keys that are only old: they are fetched beside. While the issuer does not
    answer, or answers something else, the keys before stay valid, and the log says so.

    Args:
        url: Address of the JSON Web Key Set.
        issuer: Name of the issuer, for messages.
        transport: How to reach it, for tests.
    """

    def __init__(
        self, url: str, *, issuer: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url
        """Address of the key set."""
        self._issuer = issuer
        self._transport = transport
        self._keys: tuple[Key, ...] = ()
        self._fetched = -_FRESH_SECONDS
        self._tried = -_AGAIN_SECONDS
        self._client: httpx.AsyncClient | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str | None, algorithm: str) -> Sequence[Key]:
        """Return the keys with which a token may have been signed.

        Cancellation: ends the wait; others may wait for the same keys.
        """
        if not self._keys:
            await self._renewed()
        elif _age(self._fetched) > _FRESH_SECONDS:
            self._renew()
        found = matching(self._keys, key_id, algorithm)
        if not found and key_id is not None and self._renew() is not None:
            await self._renewed()
            found = matching(self._keys, key_id, algorithm)
        if not self._keys:
            raise IssuerUnavailableError(
                f"the keys of issuer {self._issuer!r} cannot be fetched at the moment; try again"
            )
        return found

    def twin(self) -> RemoteKeys:
        """Return the same keys for another event loop, with a connection of its own."""
        other = RemoteKeys(self.url, issuer=self._issuer, transport=self._transport)
        other._keys, other._fetched = self._keys, self._fetched
        return other

    async def aclose(self) -> None:
        """Stop fetching and close the connection."""
        task, self._fetching = self._fetching, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _renew(self) -> asyncio.Task[None] | None:
        """Begin to fetch the keys, unless that was tried just now; return the task under way."""
        task = self._fetching
        if task is None or task.done():
            if _age(self._tried) < _AGAIN_SECONDS:
                return None
            self._tried = time.monotonic()
            name = f"streamq-keys {self._issuer}"
            task = self._fetching = asyncio.create_task(self._fetch(), name=name)
        return task

    async def _renewed(self) -> None:
        task = self._renew()
        if task is not None:
            await asyncio.wait({task})

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                document = await self._get()
            self._keys = tuple(published_keys(document, f"the answer of {self.url}"))
            self._fetched = time.monotonic()
        except TimeoutError:
            self._log(f"no answer within {_FETCH_SECONDS:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, StreamqError, OSError, ValueError) as exc:
            self._log(error_text(exc))

    async def _get(self) -> bytes:
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=self._transport, follow_redirects=False, timeout=_FETCH_SECONDS
            )
        plain = {"Accept-Encoding": "identity"}  # a small answer may expand to any size
        async with self._client.stream("GET", self.url, headers=plain) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}, not 200")
            found = b""
            async for part in response.aiter_raw():
                found += part
                if len(found) > _MOST_BYTES:
                    raise ValueError(f"more than {_MOST_BYTES} bytes")
        return found

    def _log(self, why: str) -> None:
        kept = "the former ones stay valid" if self._keys else "its tokens cannot be verified"
        _logger.warning(
            "the keys of issuer %r could not be fetched from %s, %s: %s",
            self._issuer,
            self.url,
            kept,
            why,
        )


def _age(moment: float) -> float:
    return time.monotonic() - moment
