"""Runs the gateway inside the current event loop, for ``streamq serve``, demos and tests.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from streamq._errors import ConfigurationError, StreamqError
from streamq.driver import close_all

from ._descriptors import room_for_connections
from ._gateway import Gateway
from ._http_protocol import GuardedProtocol
from ._listener import Listener
from ._options import GatewayOptions

_MAX_HEADER_BYTES = 32_768
_BACKLOG = 2_048
_STOP_POLL_SECONDS = 0.05


class GatewayServer:
    """A running server; get one from :func:`serve`.

    Attributes:
        host: Address it listens on.
        port: Port it listens on.
        url: Its address, without a slash at the end.
    """

    def __init__(self, host: str, port: int, task: asyncio.Task[None]) -> None:
        self.host = host
        self.port = port
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        self._task = task

    async def wait(self) -> None:
        """Wait until the server stops; by itself it stops only on failure."""
        await asyncio.shield(self._task)


@asynccontextmanager
async def serve(
    app: Starlette, host: str = "127.0.0.1", port: int = 0, *, shutdown_seconds: float = 3.0
) -> AsyncIterator[GatewayServer]:
    """Serve an application while the context is open; requests are accepted once it is entered.

    Signal handlers and logging are not changed. On exit, open event streams are ended in an orderly
    way at once, and other requests are aborted after ``shutdown_seconds``.

    Connections are bounded by :attr:`GatewayOptions.max_connections` and the limit of file
    descriptors. A connection has to send its request in time, and to accept data.

    Args:
        app: The result of :func:`create_app`, or a Starlette application that mounts it. Its
            lifespan is run here.
        host: Address or name to listen on.
        port: 0 picks a free one.
        shutdown_seconds: Bound of the shutdown.

    Raises:
        ConfigurationError: The address cannot be used, e.g. because the port is taken.
        StreamqError: The application's lifespan cannot open the queue.
    """
    listening = await _bind(host, port)
    try:
        async with app.router.lifespan_context(app):
            gateways = list(_gateways(app))
            options = gateways[0].options if gateways else GatewayOptions()
            config = uvicorn.Config(
                app,
                lifespan="off",  # run here, where its errors keep their types
                log_config=None,
                access_log=False,  # addresses may carry tickets
                ws="none",
                proxy_headers=False,  # GatewayOptions.trusted_proxies
                server_header=False,
                timeout_keep_alive=max(1, round(options.keep_alive_seconds)),
                timeout_graceful_shutdown=max(1, round(shutdown_seconds)),
                h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            )
            config.load()
            server = _Server(config)

            def connect(listener: Listener) -> GuardedProtocol:
                return GuardedProtocol(
                    listener,
                    options.request_seconds,
                    options.send_timeout_seconds,
                    config=config,
                    server_state=server.server_state,
                    app_state={},
                )

            most = _most_connections(gateways)
            listener = Listener(listening, connect, most, options.retry_seconds)
            accepting = asyncio.create_task(listener.run(), name="streamq-gateway-listener")
            accepting.add_done_callback(lambda _: server.stop())  # nobody could connect any more
            task = asyncio.create_task(server.serve(sockets=[]), name="streamq-gateway")
            try:
                await _ready(server, task)
                bound = listening.getsockname()
                yield GatewayServer(bound[0], bound[1], task)
            finally:
                await close_all(partial(_stop, server, task, accepting, gateways))
    finally:
        listening.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_ready.set()

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals belong to the program that runs this server


async def _bind(host: str, port: int) -> socket.socket:
    """Listen on an address. uvicorn would exit the process if that failed."""
    loop = asyncio.get_running_loop()
    listener: socket.socket | None = None
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as exc:
        if listener is not None:
            listener.close()
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} on {host} is already in use; stop what listens there, or choose "
                "another one (STREAMQ_GATEWAY_PORT, 0 picks a free one)"
            ) from exc
        raise ConfigurationError(f"cannot listen on {host} port {port}: {exc}") from exc
    return listener


async def _ready(server: _Server, task: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(server.is_ready.wait())
    try:
        await asyncio.wait((ready, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)
    if not server.is_ready.is_set():
        await task
        raise StreamqError("the HTTP server stopped while it was starting")


async def _stop(
    server: _Server,
    task: asyncio.Task[None],
    accepting: asyncio.Task[None],
    gateways: list[Gateway],
) -> None:
    server.should_exit = True
    accepting.cancel()
    await asyncio.wait((accepting,))
    while not task.done():
        for gateway in gateways:  # repeatedly: connections may arrive until the socket is closed
            gateway.stop_connections()
        await asyncio.wait((task,), timeout=_STOP_POLL_SECONDS)
    for connection in list(server.server_state.connections):  # clients that accepted no data
        connection.transport.abort()
    await task


def _gateways(app: object) -> Iterator[Gateway]:
    """Find the gateways in an application and in its mounts."""
    if isinstance(app, Starlette):
        gateway = getattr(app.state, "gateway", None)
        if isinstance(gateway, Gateway):
            yield gateway
        for route in app.routes:
            if isinstance(route, Mount):
                yield from _gateways(route.app)


def _most_connections(gateways: list[Gateway]) -> int:
    """Return the bound of all connections: room for event streams, and for short requests."""
    room = room_for_connections()
    if not gateways:
        return room
    streams = sum(gateway.max_connections for gateway in gateways)
    return min(room, streams + max(streams // 10, 4))
