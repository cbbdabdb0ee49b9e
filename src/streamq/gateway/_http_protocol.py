"""Adds deadlines to uvicorn's HTTP protocol: for a request to arrive, for data to be accepted.

uvicorn has a deadline between two requests only. A connection that sends nothing, or one byte of a
header now and then, would stay for ever, and so would one that accepts no data.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ._listener import Listener
from ._log_limit import gateway_logger

_TIMEOUT = (
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nCache-Control: no-store\r\n"
    b"Connection: close\r\n\r\n"
)


class GuardedProtocol(H11Protocol):
    """One connection.

    Args:
        listener: Is told whether the connection waits for a request.
        request_seconds: How long a request may take to arrive, whole.
        send_seconds: How long the client may accept no data.
        **uvicorn: Arguments of uvicorn's protocol.
    """

    def __init__(
        self, listener: Listener, request_seconds: float, send_seconds: float, **uvicorn: Any
    ) -> None:
        super().__init__(**uvicorn)
        self.logger = gateway_logger("streamq.gateway.http")  # its lines are limited
        self._listener = listener
        self._request_seconds = request_seconds
        self._send_seconds = send_seconds
        self._has_received = False
        self._arriving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._listener.is_waiting(self)
        self._arriving = self.loop.call_later(self._request_seconds, self._request_is_late)

    def data_received(self, data: bytes) -> None:
        self._has_received = True
        super().data_received(data)
        self._follow_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_responding:
            self._listener.is_waiting(self)
        # What is left is sent after the response is complete as well, also while closing.
        if self._sending is None and self.transport.get_write_buffer_size():
            self._sending = self.loop.call_later(self._send_seconds, self._sending_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._listener.is_closed(self)
        self._unset_keepalive_if_required()
        self._stop_arriving()
        self._stop_sending()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stop_sending()
        self._sending = self.loop.call_later(self._send_seconds, self._sending_is_late)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_sending()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    @property
    def _is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _follow_request(self) -> None:
        """Start or stop the deadline of a request, by what has arrived of it."""
        if self._is_responding:
            self._listener.is_busy(self)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_arriving()
        elif self._arriving is None:
            self._arriving = self.loop.call_later(self._request_seconds, self._request_is_late)

    def _request_is_late(self) -> None:
        self._arriving = None
        if self.transport.is_closing():
            return
        if self._is_responding:  # the body of a request that is being answered
            self.transport.abort()
            return
        if self._has_received:
            self.transport.write(_TIMEOUT)
        self.transport.close()

    def _sending_is_late(self) -> None:
        self._sending = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop_arriving(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
