"""Questions of many tasks, asked together: whoever asks gets an answer from after that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

import aiokafka.errors as ke

G = TypeVar("G")
K = TypeVar("K")
V = TypeVar("V")


class RoundsBy(Generic[G, K, V]):
    """Rounds for each group of keys, of which one may take longer than the others.

    Args:
        group: Says which group a key belongs to; its answer may change.
        ask: As for :class:`Rounds`.
        patience: As for :class:`Rounds`.
        pause: As for :class:`Rounds`.
    """

    def __init__(
        self,
        group: Callable[[K], G],
        ask: Callable[[Iterable[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        patience: float,
        pause: float = 0.0,
    ) -> None:
        self._group = group
        self._ask = ask
        self._patience = patience
        self._pause = pause
        self._rounds: dict[G, Rounds[K, V]] = {}
        self._closed: Exception | None = None

    async def join(self, key: K) -> V:
        """Return the answer of a round that begins after this call; see :class:`Rounds`."""
        if self._closed is not None:
            raise self._closed
        group = self._group(key)
        rounds = self._rounds.get(group)
        if rounds is None:
            rounds = self._rounds[group] = Rounds(
                self._ask, patience=self._patience, pause=self._pause
            )
        return await rounds.join(key)

    def close(self, reason: Exception) -> None:
        """Fail everybody who waits or will come."""
        self._closed = reason
        for rounds in self._rounds.values():
            rounds.close(reason)


class Rounds(Generic[K, V]):
    """Runs one question at a time; who comes while it is out is part of the next.

    Args:
        ask: Answers for all keys of a round; a value that is an exception fails those who asked for
            it, and an exception everybody.
        patience: Longest time to wait, also for one round after another.
        pause: Seconds between the beginnings of two rounds. One that comes later than that after
            the last begins at once.
    """

    def __init__(
        self,
        ask: Callable[[Iterable[K]], Awaitable[Mapping[K, V | Exception]]],
        *,
        patience: float,
        pause: float = 0.0,
    ) -> None:
        self._ask = ask
        self._patience = patience
        self._pause = pause
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._asked: list[tuple[K, asyncio.Future[V]]] = []
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        self._closed: Exception | None = None

    async def join(self, key: K) -> V:
        """Return the answer of a round that begins after this call.

        Cancellation: the others are not disturbed.

        Raises:
            TimeoutError: There was none in time.
            aiokafka.errors.LeaderNotAvailableError: The round brought none for this key.
        """
        if self._closed is not None:
            raise self._closed
        loop = asyncio.get_running_loop()
        future: asyncio.Future[V] = loop.create_future()
        self._waiting.append((key, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        async with asyncio.timeout(self._patience):
            return await future

    def close(self, reason: Exception) -> None:
        """Fail everybody who waits or will come."""
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
                await self._round(self._asked)
                self._asked = []
        finally:
            self._task = None

    async def _round(self, asked: list[tuple[K, asyncio.Future[V]]]) -> None:
        try:
            answers = await self._ask({key for key, future in asked if not future.done()})
        except Exception as exc:  # noqa: BLE001 - whatever it is, nobody must wait on
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
