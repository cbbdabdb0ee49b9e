"""The response that carries a stream as Server-Sent Events.

An own response class instead of sse-starlette's: read in version 3.7, that one replaces
``uvicorn.Server.handle_exit`` for the whole process when it is imported; learns of a shutdown by a
poll in a task that nobody owns and that outlives the connections, through a process-global flag
that is never reset; does not see the exit of a server that installs no signal handlers (our
``serve``); raises through the application when a client vanishes; and sends pings from a second
task whatever else was sent. Starlette's StreamingResponse has no send timeout. What is needed
besides sending bytes is little: one task that writes, one that notices the disconnect.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from streamq._errors import StreamNotFoundError, StreamqError

from ._follower import Follower
from ._frames import HEARTBEAT, encode_error, encode_opening
from ._gateway import Gateway
from ._problems import Problem

_logger = logging.getLogger("streamq.gateway")

_PATIENCE = 5
"""How many times longer a client shall wait after an error that will hardly go away by itself."""

_FAREWELL_SECONDS = 1.0


class EventStream(Response):
    """Sends a follower's frames until the seal, an error, the maximum age or the client's leave.

    The producer notices nothing of any of these.

    Args:
        gateway: Where the connection is counted and from which it is stopped.
        follower: The client's way through the stream; left when the response ends.
        opening: Offset to tell the client at once, see :func:`encode_opening`.
        wait_seconds: How long a stream that does not exist may take to appear.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        gateway: Gateway,
        follower: Follower,
        *,
        opening: int | None = None,
        wait_seconds: float = 0.0,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._gateway = gateway
        self._options = gateway.options
        self._follower = follower
        self._opening = opening
        self._wait_seconds = wait_seconds
        self._writer: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        end = {"type": "http.response.body", "body": b"", "more_body": False}
        try:
            await _send(send, start, _FAREWELL_SECONDS)
            if scope["method"] != "HEAD":
                async with self._gateway.connection(self):
                    await self._serve(receive, send)
            await _send(send, end, _FAREWELL_SECONDS)
        except _ClientGoneError as exc:
            _logger.debug("a client of %s is gone: %s", self._follower.hub.stream, exc)
        finally:
            await self._gateway.leave(self._follower)

    def stop(self) -> None:
        """End the connection now, in order."""
        if self._writer is not None:
            self._writer.cancel()

    async def _serve(self, receive: Receive, send: Send) -> None:
        """Write until there is nothing more to write, or :meth:`stop`.

        Raises:
            _ClientGoneError: It disconnected, or does not take what is sent.
        """
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
            await self._write(send, encode_opening(options.retry_seconds, self._opening))
            await self._write_events(send)
        except StreamqError as exc:
            if exc is not self._follower.hub.failure:
                _logger.warning("%s: %s", exc.code, exc)
            problem = Problem.of(exc)
            patience = 1 if problem.retryable else _PATIENCE
            frame = encode_error(
                problem.code,
                problem.message,
                retryable=problem.retryable,
                retry_seconds=options.retry_seconds * patience,
            )
            await self._write(send, frame)

    async def _write_events(self, send: Send) -> None:
        follower, hub, options = self._follower, self._follower.hub, self._options
        now = written = time.monotonic()
        close_at = now + options.max_age_seconds * random.uniform(0.9, 1.0)
        appear_by = now + self._wait_seconds
        while not follower.is_ended and now < close_at:
            if hub.has_appeared:
                appear_by = math.inf
            elif now >= appear_by and not (await hub.look()).exists:
                raise StreamNotFoundError(
                    f"there is no stream {hub.stream}, and none appeared within "
                    f"{self._wait_seconds:g} s",
                    stream=str(hub.stream),
                )
            until = min(written + options.heartbeat_seconds, close_at, appear_by)
            data = await follower.read(max(until - now, 0.0))
            now = time.monotonic()
            if not data and not follower.is_ended and now >= written + options.heartbeat_seconds:
                data = HEARTBEAT
            if data:
                await self._write(send, data)
                now = written = time.monotonic()

    async def _write(self, send: Send, data: bytes) -> None:
        message = {"type": "http.response.body", "body": data, "more_body": True}
        await _send(send, message, self._options.send_timeout_seconds)


class _ClientGoneError(Exception):
    pass


async def _send(send: Send, message: Message, timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await send(message)
    except TimeoutError:
        raise _ClientGoneError(f"it took nothing for {timeout_seconds:g} s") from None
    except OSError as exc:  # how ASGI servers since spec 2.4 report a disconnect
        raise _ClientGoneError(str(exc)) from exc


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _ClientGoneError("it disconnected")
