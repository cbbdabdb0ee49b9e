"""Binds an object to the event loop and the process that it was made in.

A queue, a writer or a reader waits on events of its loop and shares connections with tasks there.
In another loop it would wait for ever, and in a forked child it would use its parent's connections.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable
from typing import Any

from streamq._errors import ForeignLoopError
from streamq._events import StreamId

_CALLS = (
    *("append", "append_many", "read", "describe", "delete"),
    *("commit", "release", "newest_epoch", "sweep"),
)


class Home:
    """The event loop and the process of an object.

    Args:
        what: What it is, for messages, such as ``writer``.
        backend: Its driver, for messages.
        stream: Its stream, for messages.
    """

    __slots__ = ("_backend", "_loop", "_process", "_stream", "_what")

    def __init__(
        self, what: str, *, backend: str | None = None, stream: StreamId | None = None
    ) -> None:
        self._what = what
        self._backend = backend
        self._stream = stream
        self._loop = asyncio._get_running_loop()
        self._process = os.getpid()

    def check(self) -> None:
        """Raise unless this is the object's event loop. Costs about 50 ns.

        Made outside a loop, the object belongs to the first one that it is used in.

        Raises:
            ForeignLoopError: This is another event loop, or another process.
        """
        running = asyncio._get_running_loop()
        if running is not self._loop or running is None:
            if self._loop is None and self._process == os.getpid():
                self._loop = running
            else:
                raise self._error()

    def check_from_thread(self) -> None:
        """Raise unless the object's event loop can run, in this thread or in another one.

        Raises:
            ForeignLoopError: It has ended, another one runs here instead of it, or it is in another
                process.
        """
        loop, running = self._loop, asyncio._get_running_loop()
        if loop is None or running is loop:
            return
        is_idle = running is not None and not loop.is_running()
        if self._process != os.getpid() or loop.is_closed() or is_idle:
            raise self._error()

    @property
    def is_gone(self) -> bool:
        """Whether nothing can run there any more."""
        if self._process != os.getpid():
            return True
        return self._loop is not None and self._loop.is_closed()

    def _error(self) -> ForeignLoopError:
        if self._process != os.getpid():
            text = (
                f"this {self._what} belongs to process {self._process}, of which process "
                f"{os.getpid()} is a fork; open another one here, after the fork"
            )
        else:
            ended = "has ended" if self._loop is None or self._loop.is_closed() else "is another"
            text = (
                f"this {self._what} belongs to the event loop that it was opened in, which "
                f"{ended}; open it in the loop that uses it (each asyncio.run() makes a new one)"
            )
        stream = None if self._stream is None else str(self._stream)
        return ForeignLoopError(text, backend=self._backend, stream=stream)


def guard_calls(queue_type: type[Any]) -> None:
    """Let the calls that a class of queues defines fail outside the queue's home.

    Outside, closing releases what can be released if the home is gone.
    """
    for name in (*_CALLS, "streams"):
        if name in vars(queue_type):
            setattr(queue_type, name, _guarded(vars(queue_type)[name]))
    if "aclose" in vars(queue_type):
        queue_type.aclose = _guarded_aclose(vars(queue_type)["aclose"])


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def guarded(self: Any, *args: Any, **options: Any) -> Any:
        self.home.check()
        return call(self, *args, **options)

    return _like(guarded, call)


def _guarded_aclose(aclose: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(aclose)
    async def guarded(self: Any) -> None:
        if self.home.is_gone:
            self.abandon()
            return
        self.home.check()
        await aclose(self)

    return _like(guarded, aclose)


def _like(guarded: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    """Give a call the signature of the other, without seeming to be a decorated generator."""
    vars(guarded).pop("__wrapped__")
    vars(guarded)["__signature__"] = inspect.signature(call)
    return guarded
