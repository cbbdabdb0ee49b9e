"""Runs blocking functions in threads, each function in one thread at a time.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable, Hashable
from typing import Any


class OneThread:
    """Runs a blocking function once for all tasks that need what it returns at the same time.

    A thread cannot be cancelled. If each try began one, a function that hangs (a secret store or a
    name server that is down) would take all threads of the process. For one event loop.
    """

    def __init__(self) -> None:
        self._running: dict[Hashable, asyncio.Future[Any]] = {}

    async def call(self, function: Callable[[], Any], key: Hashable = None) -> Any:
        """Return what a function returns; await it if it is an awaitable.

        Cancellation: ends the wait and not the thread, whose result others may need.

        Args:
            function: The function.
            key: Calls with the same key share a thread and its result.

        Raises:
            Exception: What the function raises.
        """
        running = self._running.get(key)
        is_ours = running is None
        if running is None:
            loop, context = asyncio.get_running_loop(), contextvars.copy_context()
            running = self._running[key] = loop.run_in_executor(None, context.run, function)
            running.add_done_callback(lambda ended: self._forget(key, ended))
        answer = await asyncio.shield(running)
        if not inspect.isawaitable(answer):
            return answer
        # Only one task can await it.
        return await answer if is_ours else await self.call(function, key)

    def _forget(self, key: Hashable, ended: asyncio.Future[Any]) -> None:
        del self._running[key]
        if not ended.cancelled():
            ended.exception()  # it is seen, also if no task waits any more
