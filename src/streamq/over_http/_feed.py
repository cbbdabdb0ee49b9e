"""Receives the records of one stream over a response that goes on, and keeps a bounded number.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Mapping

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq.driver import Stored

from ._answers import MOST_BYTES, FrameParser, malformed, problem_error, records_of
from ._client import GatewayClient

_BUFFER_BYTES = 1_048_576
_PATIENCE = 2.5
"""A connection that is silent for this many heartbeats is lost."""

_FIRST_SECONDS = 30.0


class Feed:
    """The records after a position, as a gateway sends them.

    A task of its own reads the response, so that a reader which gives up waiting does not end it.
    The task waits while a megabyte is not fetched, or more if a call wants more.

    Args:
        client: The gateway.
        url: The route.
        params: Of the request.
        stream: The stream.
        after: The position.
    """

    def __init__(
        self,
        client: GatewayClient,
        url: str,
        params: Mapping[str, str],
        stream: StreamId,
        after: str,
    ) -> None:
        self.position = after
        """The position after the last record that was fetched."""
        self.is_used = False
        """Whether a call fetches records at the moment."""
        self.expiry: asyncio.TimerHandle | None = None
        """Timer that closes the feed while nobody uses it; kept by the queue."""
        self.is_ended = False
        """Whether nothing more arrives: the response has ended, or was lost."""
        self.error: StreamqError | None = None
        """Why the request was refused, or why the response ended."""
        self.is_gone = False
        """Whether the gateway has said that the stream was deleted, or has not appeared."""
        self.was_open = False
        """Whether the gateway has begun to answer."""
        self._client = client
        self._url = url
        self._params = params
        self._stream = stream
        self._records: deque[Stored] = deque()
        self._size_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._wanted_bytes = 0
        self._is_current = False
        self._heartbeat_seconds = math.inf
        self._task = asyncio.create_task(self._receive(), name=f"streamq-feed {stream}")

    async def fetch(self, max_records: int, max_bytes: int, until: float) -> list[Stored]:
        """Return the next records, waiting for the first one.

        While the gateway sends what was stored when it was asked, as many are waited for as the
        limits allow: then fewer are all that there were. The caller bounds the time until the
        gateway answers at all.

        Returns:
            No record at a moment of the event loop's clock, or if nothing more arrives.

        Cancellation: no record is lost.
        """
        clock = asyncio.get_running_loop().time
        self._wanted_bytes = max_bytes
        self._room.set()
        try:
            while not self._has(max_records, max_bytes):
                left = until - clock()
                if left <= 0 and (self._records or self._is_current):
                    break
                self._changed.clear()
                try:
                    # Without an answer yet, nobody knows whether there are records.
                    async with asyncio.timeout(left if left > 0 else None):
                        await self._changed.wait()
                except TimeoutError:
                    pass
        finally:
            self._wanted_bytes = 0
        found: list[Stored] = []
        size = 0
        while self._records and len(found) < max_records:
            size += len(self._records[0].data)
            if found and size > max_bytes:
                break
            found.append(self._records.popleft())
        if found:
            self.position = found[-1].position
            self._size_bytes -= sum(len(stored.data) for stored in found)
            self._room.set()
        return found

    def _has(self, max_records: int, max_bytes: int) -> bool:
        """Whether as much has arrived as a call returns."""
        if self.is_ended or (self._records and self._is_current):
            return True
        return len(self._records) >= max_records or self._size_bytes > max_bytes

    @property
    def is_empty(self) -> bool:
        """Whether every record that has arrived was fetched."""
        return not self._records

    async def aclose(self) -> None:
        """End the response. Idempotent."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _receive(self) -> None:
        try:
            async with self._client.pieces(self._url, self._params, self._stream) as pieces:
                parser, limit = FrameParser(), _FIRST_SECONDS
                while True:
                    async with asyncio.timeout(limit):
                        piece = await anext(pieces, None)
                    if piece is None:
                        return
                    for kind, data in parser.feed(piece):
                        if not await self._take(kind, data):
                            return
                    if parser.size_bytes > MOST_BYTES:
                        raise malformed(
                            self._client.origin,
                            f"a frame of more than {MOST_BYTES} bytes",
                            self._stream,
                        )
                    limit = min(self._heartbeat_seconds * _PATIENCE, _FIRST_SECONDS * 10)
        except TimeoutError:
            pass  # the connection is lost, and nobody has said so
        except StreamqError as exc:
            self.error = exc
        finally:
            self.is_ended = True
            self._changed.set()

    async def _take(self, kind: str, data: bytes) -> bool:
        """Take a frame; return whether more may follow."""
        origin = self._client.origin
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            raise malformed(origin, "a frame that is no JSON", self._stream) from None
        if kind == "records":
            self._add(records_of(found, origin, self._stream))
            while self._size_bytes > max(self._wanted_bytes, _BUFFER_BYTES):
                self._room.clear()
                await self._room.wait()
            return True
        if not isinstance(found, dict):
            raise malformed(origin, "a frame that cannot be used", self._stream)
        match kind:
            case "current":
                self._is_current = True
                self._changed.set()
            case "open":
                self.was_open = True
                seconds = found.get("heartbeat_seconds")
                if isinstance(seconds, int | float) and seconds > 0:
                    self._heartbeat_seconds = float(seconds)
            case "reconnect" | "revoked":
                if kind == "revoked" or found.get("reason") == "token_expired":
                    self._client.token.refuse(await self._client.token.get())
                return False
            case "error":
                if found.get("error") == "stream_not_found":
                    self.is_gone = True
                else:
                    self.error = problem_error(
                        str(found.get("error")),
                        str(found.get("message"))[:500],
                        None,
                        origin,
                        self._stream,
                        retryable=found.get("retryable") is True,
                    )
                return False
        return True

    def _add(self, records: list[Stored]) -> None:
        self._records.extend(records)
        self._size_bytes += sum(len(stored.data) for stored in records)
        self._changed.set()
