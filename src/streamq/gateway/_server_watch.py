"""Notices that the server which runs the application begins to stop.

A server sends ``lifespan.shutdown`` only when all connections are closed, and an event stream never
ends by itself. ASGI has no earlier notification. So the state of the known servers is read: that of
uvicorn (``Server.should_exit``, also under gunicorn, in a thread, or with signal handlers of the
application) and that of hypercorn (``WorkerContext.terminated``). Both are found in the coroutines
of the event loop's tasks. Nothing is replaced and no signal is caught.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_POLL_SECONDS = 0.25

StopCheck = Callable[[], bool]


class ServerWatch:
    """Calls a function when the server begins to stop, whichever of the known ones it is."""

    async def wait(self, is_needed: Callable[[], bool], stop: Callable[[], None]) -> None:
        """Watch while ``is_needed`` returns true; call ``stop`` repeatedly once the server stops.

        Repeatedly, because connections may arrive until the server has closed its socket.
        """
        checks = [*_servers_of_this_loop(), _handler_is_exiting]
        while is_needed():
            if any(check() for check in checks):
                stop()
            await asyncio.sleep(_POLL_SECONDS)


def _servers_of_this_loop() -> Iterator[StopCheck]:
    seen: set[int] = set()
    for task in asyncio.all_tasks():
        for frame in _frames(task.get_coro()):
            module = str(frame.f_globals.get("__name__", ""))
            if module == "uvicorn.server":
                server, check = frame.f_locals.get("self"), _uvicorn_check
            elif module == "hypercorn.asyncio.run":
                server, check = frame.f_locals.get("context"), _hypercorn_check
            else:
                continue
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


def _handler_is_exiting() -> bool:
    """Return whether a uvicorn that installed a signal handler is exiting."""
    for number in (signal.SIGINT, signal.SIGTERM):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False
