"""Gives each event loop a gateway of its own, which is closed when the loop ends.

A mounted application has no lifespan, and test clients run each request in a loop of its own.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator

from starlette.requests import Request

from ._gateway import Gateway


class LoopGateways:
    """The gateways of an application: one, unless several event loops use it at the same time.

    Args:
        first: The gateway that users know as ``app.state.gateway``.
    """

    def __init__(self, first: Gateway) -> None:
        self._first = first
        self._lock = threading.Lock()
        self._by_loop: dict[
            asyncio.AbstractEventLoop, tuple[Gateway, AsyncGenerator[None, None]]
        ] = {}

    def current(self) -> Gateway:
        """Return the gateway of the running loop; the first one unless another loop has it."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._by_loop:
                self._forget_ended_loops()
                in_use = any(gateway is self._first for gateway, _ in self._by_loop.values())
                gateway = self._first.twin() if in_use else self._first
                self._by_loop[loop] = gateway, _closed_with_loop(gateway)
            return self._by_loop[loop][0]

    def _forget_ended_loops(self) -> None:
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            gateway, _ = self._by_loop.pop(loop)
            gateway.renew()


def gateway_of(request: Request) -> Gateway:
    """Return the gateway that answers a request: that of the running loop."""
    gateways: LoopGateways = request.app.state.gateways
    return gateways.current()


def _closed_with_loop(gateway: Gateway) -> AsyncGenerator[None, None]:
    """Have the gateway closed at the end of the running loop, which closes its generators then."""

    async def generator() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await gateway.aclose()

    begun = generator()
    with contextlib.suppress(StopIteration):
        begun.__anext__().send(None)
    return begun
