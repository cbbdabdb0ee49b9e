"""Answers the same question of many tasks with one request.

Every task gets an answer from after its call. While a request is under way, further tasks wait for
the next request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

import aiokafka.errors as ke

G = TypeVar("G")
K = TypeVar("K")
V = TypeVar("V")


class GroupedCoalescer(Generic[G, K, V]):
    """A coalescer for each group of keys, so that a slow group does not delay the others.

    Args:
        group: Returns the group of a key; the group of a key may change.
        ask: As for :class:`Coalescer`.
        timeout_seconds: As for :class:`Coalescer`.
        pause: As for :class:`Coalescer`.
    """

    def __init__(
        self,
        group: Callable[[K], G],
        ask: Callable[[Iterable[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        timeout_seconds: float,
        pause: float = 0.0,
    ) -> None:
        self._group = group
        self._ask = ask
        self._timeout_seconds = timeout_seconds
        self._pause = pause
        self._coalescers: dict[G, Coalescer[K, V]] = {}
        self._closed: Exception | None = None

    async def load(self, key: K) -> V:
        """Return the answer of a request that is sent after this call; see :class:`Coalescer`."""
        if self._closed is not None:
            raise self._closed
        group = self._group(key)
        coalescer = self._coalescers.get(group)
        if coalescer is None:
            coalescer = self._coalescers[group] = Coalescer(
                self._ask, timeout_seconds=self._timeout_seconds, pause=self._pause
            )
        return await coalescer.load(key)

    def close(self, reason: Exception) -> None:
        """Fail every task that waits, and every later call."""
        self._closed = reason
        for coalescer in self._coalescers.values():
            coalescer.close(reason)


class Coalescer(Generic[K, V]):
    """Has one request under way at a time; tasks that come meanwhile share the next one.

    Args:
        ask: Sends the request for the keys of many tasks. A value that is an exception fails the
            tasks that asked for its key; an exception that is raised fails all tasks.
        timeout_seconds: Longest time that a task waits, also for one request after another.
        pause: Shortest time in seconds between the beginnings of two requests. The first request
            after a longer time is sent at once.
    """

    def __init__(
        self,
        ask: Callable[[Iterable[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        timeout_seconds: float,
        pause: float = 0.0,
    ) -> None:
        self._ask = ask
        self._timeout_seconds = timeout_seconds
        self._pause = pause
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._asked: list[tuple[K, asyncio.Future[V]]] = []
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        self._closed: Exception | None = None

    async def load(self, key: K) -> V:
        """Return the answer of a request that is sent after this call.

        Cancellation: other tasks are not affected.

        Raises:
            TimeoutError: There was no answer in time.
            aiokafka.errors.LeaderNotAvailableError: The answer has nothing for this key.
        """
        if self._closed is not None:
            raise self._closed
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V] = loop.create_future()
        self._waiting.append((key, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        async with asyncio.timeout(self._timeout_seconds):
            return await future

    def close(self, reason: Exception) -> None:
        """Fail every task that waits, and every later call."""
        self._closed = reason
        if self._task is not None:
            self._task.cancel()
        for _, future in self._waiting + self._asked:
            if not future.done():
                future.set_exception(reason)

    async def _run(self) -> None:
        try:
            loop = asyncio.get_running_loop()
            while self._waiting:
                early = self._next - loop.time()
                if early > 0:
                    await asyncio.sleep(early)
                self._next = loop.time() + self._pause
                self._asked, self._waiting = self._waiting, []
                await self._answer(self._asked)
                self._asked = []
        finally:
            self._task = None

    async def _answer(self, asked: list[tuple[K, asyncio.Future[V]]]) -> None:
        try:
            answers = await self._ask({key for key, future in asked if not future.done()})
        except Exception as exc:  # noqa: BLE001 - no task may wait on, whatever was raised
            answers = {key: exc for key, _ in asked}
        for key, future in asked:
            if future.done():
                continue
            answer = answers.get(key)
            if answer is None:
                future.set_exception(ke.LeaderNotAvailableError(f"no answer for {key!r}"))
            elif isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
