"""Notices that the server which runs the application begins to stop.

A server sends ``lifespan.shutdown`` only when all connections are closed, and an event stream never
ends by itself. ASGI has no earlier notification. So the state of the known servers is read: that of
uvicorn (``Server.should_exit``, also under gunicorn, in a thread, or with signal handlers of the
application) and that of hypercorn (``WorkerContext.terminated``). Both are found in the coroutines
of the event loop's tasks. For all other servers, such as granian, the handlers of SIGINT and
SIGTERM are followed: each is called as before.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

_POLL_SECONDS = 0.25
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

StopCheck = Callable[[], bool]


class Stoppable(Protocol):
    """An open connection that can be stopped."""

    def stop(self) -> None:
        """End the connection now, in an orderly way."""


class ServerWatch:
    """Calls a function when the server begins to stop, whichever it is."""

    async def wait(self, is_needed: Callable[[], bool], stop: Callable[[], None]) -> None:
        """Watch while ``is_needed`` returns true; call ``stop`` repeatedly once the server stops.

        Repeatedly, because connections may arrive until the server has closed its socket.
        """
        checks = list(_servers_of_this_loop())
        if checks:
            await _poll(checks, is_needed, stop)
        else:
            with _followed_signals() as received:
                await _poll([_handler_is_exiting, received.is_set], is_needed, stop, received)


async def _poll(
    checks: list[StopCheck],
    is_needed: Callable[[], bool],
    stop: Callable[[], None],
    received: asyncio.Event | None = None,
) -> None:
    while is_needed():
        if any(check() for check in checks):
            stop()
        if received is None or received.is_set():
            await asyncio.sleep(_POLL_SECONDS)
        else:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await received.wait()
            except TimeoutError:
                pass


@contextmanager
def _followed_signals() -> Iterator[asyncio.Event]:
    """Set an event when a signal that somebody handles arrives; the handler is called as before.

    A handler that a loop has installed (``add_signal_handler``) is called as well: the loop learns
    of the signal by other means.
    """
    received = asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    loop = asyncio.get_running_loop()
    previous: dict[int, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop has ended, and somebody has wrapped this handler
            loop.call_soon_threadsafe(received.set)
        previous[number](number, frame)

    for handled in _SIGNALS:
        handler = signal.getsignal(handled)
        if callable(handler):
            previous[handled] = handler
            _install(handled, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is note:
                _install(number, handler)


def _install(number: int, handler: Any) -> None:
    signal.signal(number, handler)
    signal.siginterrupt(number, False)  # as asyncio does: system calls go on


def _servers_of_this_loop() -> Iterator[StopCheck]:
    """Yield a check for each known server that runs in this event loop."""
    seen: set[int] = set()
    for task in asyncio.all_tasks():
        for frame in _frames(task.get_coro()):
            name, check = _KNOWN.get(str(frame.f_globals.get("__name__")), ("", _uvicorn_check))
            server = frame.f_locals.get(name)
            if server is not None and id(server) not in seen:
                seen.add(id(server))
                yield check(server)


def _frames(awaitable: Any) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of those that it awaits."""
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None)
        if frame is not None:
            yield frame
        awaitable = getattr(awaitable, "cr_await", None)


def _uvicorn_check(server: Any) -> StopCheck:
    return lambda: getattr(server, "should_exit", False) is True


def _hypercorn_check(context: Any) -> StopCheck:
    terminated = getattr(context, "terminated", None)
    return lambda: terminated is not None and bool(terminated.is_set())


# Modules whose coroutines run a server: the variable that holds its state, and a check of it.
_KNOWN: dict[str, tuple[str, Callable[[Any], StopCheck]]] = {
    "uvicorn.server": ("self", _uvicorn_check),
    "hypercorn.asyncio.run": ("context", _hypercorn_check),
}


def _handler_is_exiting() -> bool:
    """Return whether a uvicorn that installed a signal handler is exiting."""
    for number in _SIGNALS:
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False
