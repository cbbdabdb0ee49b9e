"""Sends something that goes on, such as a stream, as the response to a request.

This response has two tasks: one writes, the other notices that the client has disconnected.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import abc
import asyncio
import math
import random
import time

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq.access import Rights

from ._error_responses import SAFE_HEADERS, Problem
from ._frames import HEARTBEAT, encode_error
from ._gateway import Gateway
from ._log_limit import gateway_logger

_logger = gateway_logger()

_PATIENCE = 5
"""Factor of the reconnection delay after an error that is unlikely to pass by itself."""

_START_AND_END_SECONDS = 1.0
_UNUSED_SECONDS = 60.0
_PIECE_BYTES = 65_536

HEADERS = {
    # Proxies that compress hold events back until there is enough to compress; no-transform forbids
    # it, to proxies (compression of Express, CDNs) and to middleware that asks for an encoding.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    **SAFE_HEADERS,
}


class LiveResponse(Response, abc.ABC):
    """Sends frames until what is sent has ended, an error, the maximum age or a disconnect.

    None of these affects the producer. Every response whose client is still there ends with a named
    event: that of the ending, ``error``, or ``reconnect`` where the stream goes on. If it is
    stopped while a client does not accept the last event, that one is not followed by another.

    A response holds its place from the moment when it is made. One that nobody sends, since what
    received it has failed, gives the place up after a minute.

    Args:
        gateway: Counts the connection and can stop it.
        asked: The stream by the name that the client asked for, which is the only one that is named
            to anybody; see :func:`visible_stream`.
        wait_seconds: How long a stream that does not exist may take to appear.
        rights: What the client's token permits, and when it ends.
    """

    media_type = "text/event-stream"
    _heartbeat = HEARTBEAT

    def __init__(
        self,
        gateway: Gateway,
        asked: StreamId,
        *,
        wait_seconds: float = 0.0,
        rights: Rights | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(HEADERS)
        self._gateway = gateway
        self._options = gateway.options
        self._asked = asked
        self._wait_seconds = wait_seconds
        self._rights = rights
        self._expires_at = None if rights is None else rights.expires_at
        self._goodbye = "max_age"
        self._writer: asyncio.Task[None] | None = None
        self._stopped_for: str | None = None
        self._is_sending = False
        self._is_over = False
        loop = asyncio.get_running_loop()
        self._unused = loop.call_later(_UNUSED_SECONDS, self._give_up)

    @property
    @abc.abstractmethod
    def _is_ended(self) -> bool:
        """Whether what was read last was the ending."""

    @property
    @abc.abstractmethod
    def _has_appeared(self) -> bool:
        """Whether what the client waits for is known to exist."""

    @abc.abstractmethod
    async def _exists(self) -> bool:
        """Return whether it exists by now, when the client's patience is over."""

    @abc.abstractmethod
    async def _read(self, max_wait: float) -> bytes:
        """Return the next frames; ``b""`` after ``max_wait``."""

    @abc.abstractmethod
    def _note_sent(self) -> None:
        """Remember that everything which was read was sent."""

    @abc.abstractmethod
    def _opening_frames(self, expires_in: float | None) -> bytes:
        """Return the first bytes; see :func:`encode_opening`."""

    @abc.abstractmethod
    def _goodbye_frame(self, reason: str) -> bytes:
        """Return the frame that says where the client goes on after what was sent."""

    @abc.abstractmethod
    def _is_reported(self, error: StreamqError) -> bool:
        """Whether an error has been logged by whoever met it."""

    @abc.abstractmethod
    def _leave(self) -> None:
        """Give up what the response holds; called once when it is over."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        end = {"type": "http.response.body", "body": b"", "more_body": False}
        self._unused.cancel()
        try:
            await _send(send, start, _START_AND_END_SECONDS)
            if scope["method"] != "HEAD":
                revocations = self._gateway.revocations
                with revocations.holding(self._rights, self):
                    async with self._gateway.connection(self):
                        await self._serve(receive, send)
                if self._stopped_for is not None and not self._is_sending:
                    await self._say_goodbye(send, self._stopped_for, _START_AND_END_SECONDS)
            await _send(send, end, _START_AND_END_SECONDS)
        except _ClientGoneError as exc:
            _logger.debug("a client of %s is gone: %s", self._asked, exc)
        finally:
            self._end()
        if self.background is not None:  # of an application's own route
            await self.background()

    def stop(self, reason: str = "stopping") -> None:
        """End the connection now, in an orderly way."""
        if self._writer is None:  # the response begins; it writes nothing then
            self._stopped_for = reason
        elif not self._writer.done():
            self._stopped_for = reason
            self._writer.cancel()

    def _give_up(self) -> None:
        _logger.warning("a response with %s was made, and nobody has sent it", self._asked)
        self.stop("max_age")
        self._end()

    def _end(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._leave()

    async def _serve(self, receive: Receive, send: Send) -> None:
        """Write until the stream has ended, or :meth:`stop` is called.

        Raises:
            _ClientGoneError: The client disconnected, or accepts no data.
        """
        if self._stopped_for is not None:
            return
        writer = self._writer = asyncio.create_task(self._write_all(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((writer, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            writer.cancel()
            leaving.cancel()
            outcomes = await asyncio.gather(writer, leaving, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _write_all(self, send: Send) -> None:
        options = self._options
        try:
            expires_in = None if self._expires_at is None else self._expires_at - time.time()
            await self._write(send, self._opening_frames(expires_in))
            await self._write_frames(send)
            if not self._is_ended:
                await self._say_goodbye(send, self._goodbye, options.send_timeout_seconds)
        except StreamqError as exc:
            if not self._is_reported(exc):
                self._gateway.failures.log(self._asked, exc)
            problem = Problem.of(exc)
            patience = 1 if problem.retryable else _PATIENCE
            frame = encode_error(
                problem.code,
                problem.message,
                retryable=problem.retryable,
                retry_seconds=options.retry_seconds * patience,
            )
            await self._write(send, frame)

    async def _write_frames(self, send: Send) -> None:
        options = self._options
        now = written = time.monotonic()
        close_at = now + self._most_seconds()
        appear_by = now + self._wait_seconds
        while not self._is_ended and now < close_at and not self._is_expired():
            if self._has_appeared:
                appear_by = math.inf
            elif now >= appear_by and not await self._exists():
                raise StreamNotFoundError(
                    f"there is no stream {self._asked}, and none appeared within "
                    f"{self._wait_seconds:g} s",
                    stream=str(self._asked),
                )
            until = min(written + options.heartbeat_seconds, close_at, appear_by)
            data = await self._read(max(until - now, 0.0))
            now = time.monotonic()
            if not data and not self._is_ended and now >= written + options.heartbeat_seconds:
                data, written = self._heartbeat, now  # also where a response has no heartbeat
            if data:
                await self._write(send, data)
                self._note_sent()
                now = written = time.monotonic()

    def _most_seconds(self) -> float:
        """Return how long this connection may last: no longer than its token."""
        most = self._options.max_age_seconds * random.uniform(0.9, 1.0)
        if self._expires_at is None or self._expires_at - time.time() > most:
            return most
        self._goodbye = "token_expired"
        return max(self._expires_at - time.time(), 0.0)

    def _is_expired(self) -> bool:
        """Whether the token has ended by the clock, which may have been set meanwhile."""
        if self._expires_at is None or time.time() < self._expires_at:
            return False
        self._goodbye = "token_expired"
        return True

    async def _say_goodbye(self, send: Send, reason: str, timeout_seconds: float) -> None:
        data = self._goodbye_frame(reason)
        message = {"type": "http.response.body", "body": data, "more_body": True}
        await _send(send, message, timeout_seconds)

    async def _write(self, send: Send, data: bytes) -> None:
        # In pieces: servers copy what a client does not accept at once, and a chunk may be large.
        # While it is not known what was sent, nothing can be sent after it.
        self._is_sending = True
        for start in range(0, len(data), _PIECE_BYTES):
            body = data if len(data) <= _PIECE_BYTES else data[start : start + _PIECE_BYTES]
            message = {"type": "http.response.body", "body": body, "more_body": True}
            await _send(send, message, self._options.send_timeout_seconds)
        self._is_sending = False


class _ClientGoneError(Exception):
    pass


async def _send(send: Send, message: Message, timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await send(message)
    except TimeoutError:
        raise _ClientGoneError(f"it accepted no data for {timeout_seconds:g} s") from None
    except OSError as exc:  # the report of a disconnect since version 2.4 of the ASGI spec
        raise _ClientGoneError(str(exc)) from exc


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _ClientGoneError("it disconnected")
